"""Logits, losses, gradients and tokens on the device, beside those of the CPU in fp32.

Bounds. A relative rounding error u (half a unit in the last place: 2^-9 for bf16, 2^-12 for fp16) is made about 12
times in each of L blocks and adds up like a random walk, each part being u / sqrt(3) on average. For L = 12 that makes
sqrt(12 * 12) * u / sqrt(3), 1.6e-2 for bf16 and 2.0e-3 for fp16, as a relative L2 error of the logits. The bounds are
2e-2 and 3e-3. In fp32 the largest difference may be 1e-4 of the largest logit.

A greedy token need not be the reference's where two logits are close. With a relative error b, the error of a
difference of two logits is sqrt(2) b times the logits' root mean square, and the largest of 50,257 such is 4.5 times
as large: so a chosen token may fall behind the reference's by 7 b, and by 2e-4 of the largest logit in fp32.
"""

import copy
import json
import random

import torch
from torch.nn import functional as F

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.config import GPTConfig, SamplingConfig
from gpt2cli.data.batches import make_rows
from gpt2cli.data.dataset import TokenDataset, from_sequences
from gpt2cli.generation import decode
from gpt2cli.inference.decoder import Decoder
from gpt2cli.model.gpt import GPT
from gpt2cli.training.loss import SequenceLoss
from tests.gpu.common import DTYPES, VOCAB, Context, cli, random_ids, random_model, relative, use_graphs
from tests.models import save_hub_directory

BOUNDS = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 3e-3}
"""Of the relative L2 error of logits; for fp32, of the largest difference beside the largest logit."""


@torch.inference_mode()
def logits(context: Context) -> None:
    """A whole forward pass over three rows, and the mean loss of predicting them."""
    model = random_model(context.shape("124m"), context.device)
    length = context.pick(300, 60)
    idx = torch.tensor([random_ids(length, seed) for seed in range(3)])
    expected = copy.deepcopy(model).cpu()(idx)
    loss = next_token_loss(expected, idx)
    for precision, bound in BOUNDS.items():
        held = copy.deepcopy(model).to(DTYPES[precision])
        found = held(idx.to(context.device)).float().cpu()
        largest = float((found - expected).abs().max() / expected.abs().max())
        error = relative(found, expected)
        worse = abs(next_token_loss(found, idx) - loss)
        good = (largest if precision == "fp32" else error) <= bound and worse <= bound
        figures = {"bound": bound, "relative_l2": error, "largest": largest, "loss": loss, "loss_difference": worse}
        context.report(precision, good, **figures)


def next_token_loss(logits: torch.Tensor, idx: torch.Tensor) -> float:
    return float(F.cross_entropy(logits[:, :-1].flatten(0, 1).double(), idx[:, 1:].flatten()))


def gradients(context: Context) -> None:
    """Loss and gradients of packed rows that share beginnings, in fp32 and bf16 autocast, beside the CPU's in fp32."""
    model = random_model(context.shape("124m"), context.device)
    data = packed_data(context.pick(12, 6))
    loss, expected = loss_and_gradient(copy.deepcopy(model).cpu(), data, None)
    # a backward pass rounds as often again as the forward pass; its two thirds of the products add up the same way
    for precision, loss_bound, bound in (("fp32", 1e-5, 1e-4), ("bf16", 1e-2, 5e-2)):
        autocast = None if precision == "fp32" else torch.bfloat16
        again, found = loss_and_gradient(copy.deepcopy(model), data, autocast)
        difference, error = abs(again - loss) / loss, relative(found, expected)
        good = difference <= loss_bound and error <= bound
        context.report(precision, good, loss=loss, loss_difference=difference, gradient_l2=error, bound=bound)


def packed_data(count: int) -> TokenDataset:
    """Sequences of which most share their first 20 tokens."""
    choose = random.Random(0)
    beginning = random_ids(20, 1)
    sequences = [[*beginning, *random_ids(choose.randint(4, 60), i)] for i in range(count)] + [random_ids(50, 99)]
    return from_sequences([torch.tensor(sequence).to(torch.uint16) for sequence in sequences], [21] * count + [1])


def loss_and_gradient(
    model: GPT, data: TokenDataset, autocast: torch.dtype | None, module: torch.nn.Module | None = None
) -> tuple[float, torch.Tensor]:
    """The mean loss, by `module` if it is given, and all gradients in one vector on the CPU."""
    module = SequenceLoss(model) if module is None else module
    device = model.wte.weight.device
    total = torch.zeros((), device=device)
    for row in make_rows(data, range(len(data)), 256, device):
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            loss = module(row) / data.n_targets
        loss.backward()
        total += loss.detach()
    gradients = [parameter.grad.flatten().float().cpu() for parameter in model.parameters()]
    return float(total), torch.cat(gradients)


def sampling(context: Context) -> None:
    """`generate` with a seed writes the same three samples on the device, by graphs too, and on the CPU."""
    options = ["--model", "tiny", "-n", context.pick(80, 20), "--num-samples", 3, "--seed", 1, "--precision", "fp32"]
    for case, extra in (("defaults", []), ("all-options", ["--temp", 1, "--top-p", 0.9, "--repetition-penalty", 1.2])):
        expected = samples(*options, *extra, "--device", "cpu")
        for name, compiled in ((case, []), (f"{case}-compiled", ["--compile"])):
            if compiled and not context.cuda:
                context.skip("--compile is for CUDA", name)
                continue
            with context.each(name):
                found = samples(*options, *extra, *compiled, "--device", context.device.type)
                same = sum(one == other for one, other in zip(found, expected, strict=True))
                context.report(name, found == expected, same_samples=same, tokens=sum(map(len, expected)))


def samples(*options: object) -> list[list[int]]:
    done = cli("generate", "Once upon a time", *options, "--json")
    return [json.loads(line)["tokens"] for line in done.stdout.splitlines()]


def decoding(context: Context, precision: str, graphs: bool, fused: bool | None = None) -> None:
    """Greedy texts, and the logits of every step, of batches of 1, 3 and 16 rows, within the window and beyond it.

    Graphs choose tokens on the device and show no logits, but for a repetition penalty: with one so near 1 that it
    does nothing, a second round compares these.
    """
    config = context.pick(
        GPTConfig(n_layer=12, n_head=12, n_embd=768, block_size=128),
        GPTConfig(n_layer=2, n_head=2, n_embd=64, block_size=48),
    )
    saved = save_hub_directory(random_model(config, context.device).cpu(), context.work / "model")
    reference = load_plain(str(saved), device="cpu")
    model = open_model(context, str(saved), precision, graphs, fused)
    for penalty in (1.0, 1 + 1e-7) if graphs else (1.0,):
        for case, lengths, new in cases(config.block_size):
            prompts = [random_ids(length, i if "same" not in case else 0) for i, length in enumerate(lengths)]
            name = case if penalty == 1 else f"{case}-logits"
            with context.each(name):
                texts, steps = greedy(model, prompts, new, penalty)
                compare(context, name, precision, reference, prompts, new, texts, steps)


def cases(window: int) -> list[tuple[str, list[int], int]]:
    """Names, the prompts' lengths, and how many tokens to write; the last two go beyond the window."""
    third = window // 3
    ragged = [third - third // 6 * (i % 5) for i in range(16)]
    return [
        ("one", [third], third),
        ("three-same", [third] * 3, third),
        ("three-ragged", ragged[:3], third),
        ("sixteen-ragged", ragged, third),
        ("one-past-window", [third], window),
        ("three-past-window", ragged[:3], window),
    ]


def open_model(context: Context, directory: str, precision: str, graphs: bool, fused: bool | None) -> Decoder:
    """The model as `generate` opens it, with `--compile` or not."""
    from gpt2cli.checkpoints.model_spec import ModelSpec
    from gpt2cli.cli.open_model import open_model
    from gpt2cli.cli.terminal import Console

    if graphs and not context.cuda:  # as the command does not
        return use_graphs(context, load_plain(directory, device="cpu").to(DTYPES[precision]))
    compiled = graphs and fused is None
    console = Console(quiet=True)
    spec = ModelSpec(directory, device=context.device.type, precision=precision, offline=True)
    model, _ = open_model(console, spec, None, compiled)
    return use_graphs(context, model.gpt, fused) if graphs and not compiled else model


def greedy(
    model: Decoder, prompts: list[list[int]], new: int, penalty: float
) -> tuple[list[list[int]], list[list[torch.Tensor]]]:
    """The rows' tokens, and the logits that each was chosen by."""
    texts = [[] for _ in prompts]
    steps = [[] for _ in prompts]

    class Recording(decode.Sampler):
        def choose(self, logits, contexts, rows):
            for row, values in zip(rows, torch.as_tensor(logits).float().cpu(), strict=True):
                steps[row].append(values[:VOCAB])
            return super().choose(logits, contexts, rows)

    usual, decode.Sampler = decode.Sampler, Recording
    try:
        sampling = SamplingConfig(max_new_tokens=new, temperature=0, repetition_penalty=penalty)
        for row, token in decode.generate_tokens(model, prompts, sampling, list(range(len(prompts)))):
            texts[row].append(token)
    finally:
        decode.Sampler = usual
    return texts, steps


def compare(context, case, precision, reference, prompts, new, texts, steps) -> None:
    """Report how far the logits are from the reference's for the same texts, and the tokens from its likeliest ones.

    A decoder that chooses tokens on the device shows no logits; then the tokens alone are compared.
    """
    if any(len(text) != new for text in texts):
        context.report(case, False, error=f"{[len(text) for text in texts]} tokens, not {new} each")
        return
    expected = torch.stack([reference_logits(reference, *pair) for pair in zip(prompts, texts, strict=True)])
    best = expected.max(dim=2)
    tokens = torch.tensor(texts)
    bound = BOUNDS[precision]
    scale, allowed = (
        (expected.abs().max(), 2 * bound) if precision == "fp32" else (expected.square().mean().sqrt(), 7 * bound)
    )
    behind = float((best.values - expected.gather(2, tokens[:, :, None])[:, :, 0]).max() / scale)
    figures = {
        "behind": behind,
        "allowed": allowed,
        "likeliest": f"{int((best.indices == tokens).sum())}/{tokens.numel()}",
    }
    good = behind <= allowed
    if all(len(mine) == new for mine in steps):
        found = torch.stack([torch.stack(mine) for mine in steps])
        figures |= {"relative_l2": relative(found, expected), "bound": bound}
        figures["largest"] = float((found - expected).abs().max() / expected.abs().max())
        good = good and figures["largest" if precision == "fp32" else "relative_l2"] <= bound
    context.report(case, good, logits=sum(map(len, steps)), **figures)


@torch.inference_mode()
def reference_logits(model: GPT, prompt: list[int], text: list[int]) -> torch.Tensor:
    """The logits (n, V) that each token of `text` is chosen by, from whole forward passes over what can be seen.

    When the window is full, the newer half of the tokens is read anew, as `decode.generate_tokens` says.
    """
    window = model.config.block_size
    seen, parts = list(prompt), []
    rest = list(text)
    while rest:
        room = min(len(rest), window - len(seen) + 1)  # tokens chosen before the window has to be read anew
        idx = torch.tensor([[*seen, *rest[: room - 1]]])
        parts.append(model(idx)[0, len(seen) - 1 :])
        seen, rest = [*seen, *rest[:room]][-(window // 2) :], rest[room:]
    return torch.cat(parts)
