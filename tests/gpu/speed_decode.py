"""How fast texts are written and prompts are read, beside transformers.

A decode step of B rows reads all weights once, and the keys and values of all tokens that are in the cache:

    bytes = weights + B * tokens * 2 * n_layer * n_embd * bytes of a value

where `tokens` is the mean over the steps, prompt + new / 2. The memory's limit is these bytes divided by its bandwidth
for reading, measured in the same process; `share_of_limit` is that time divided by a step's.

Reading T tokens takes 2 N T + 2 L C T^2 operations in the blocks, whose matrices have N weights (attention is causal
and counted half: 4 L C T^2 / 2), and 2 V C for the logits of the last token.
"""

import math
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from gpt2cli.config import GPTConfig, SamplingConfig
from gpt2cli.generation.decode import generate_tokens
from gpt2cli.inference.decoder import Decoder
from gpt2cli.inference.gpu.bandwidth import read_bandwidth
from gpt2cli.inference.torch_decoder import TorchDecoder
from tests.gpu.card import DATASHEET_BF16, matmul_rate
from tests.gpu.common import Context, random_ids, random_model, use_graphs

ROWS = (1, 16, 64)
PROMPT, NEW = 64, 128
REPEATS = 3
BUDGET = 10.0
"""Seconds after which a case is not repeated any more."""


def ours(context: Context, size: str, graphs: bool) -> None:
    """Greedy decoding in bf16, by graphs or without, 1, 16 and 64 rows."""
    bandwidth = read_bandwidth(context.device.type)
    plain = random_model(context.shape(size), context.device).to(torch.bfloat16)
    new = context.pick(NEW, 12)
    mode = "graphs" if graphs else "eager"
    model = use_graphs(context, plain) if graphs else TorchDecoder(plain)
    for rows in ROWS:
        with context.each(f"{mode}-{rows}"):
            prompts = [random_ids(context.pick(PROMPT, 8), seed) for seed in range(rows)]
            context.reset_peak()
            report(context, f"{mode}-{rows}", model, bandwidth, lambda p=prompts: write(context, model, p, new))


Written = tuple[int, int, int, float, float]
"""Rows, prompt tokens, new tokens, seconds to the first new token of all rows, and of all further ones."""


def write(context: Context, model: Decoder, prompts: list[list[int]], new: int) -> Written:
    """Continue the prompts greedily, one token a step and row."""
    sampling = SamplingConfig(max_new_tokens=new, temperature=0)
    start, first, count = context.clock(), 0.0, 0
    for _ in generate_tokens(model, prompts, sampling, list(range(len(prompts))), speculate=False):
        count += 1
        if count == len(prompts):
            first = time.perf_counter()
    if count != new * len(prompts):
        raise RuntimeError(f"{count} tokens, not {new * len(prompts)}")
    return len(prompts), len(prompts[0]), new, first - start, context.clock() - first


def report(
    context: Context, case: str, model: Decoder | None, bandwidth: float, run: Callable[[], Written], **figures: object
) -> float:
    """Warm up, run a few times, and report medians; the seconds of a step."""
    start = context.clock()
    run()
    warm_up = context.clock() - start
    if warm_up < BUDGET:
        run()
    runs: list[Written] = []
    while len(runs) < REPEATS and (not runs or time.perf_counter() - start - warm_up < BUDGET):
        runs.append(run())
    rows, prompt, new = runs[0][:3]
    step = statistics.median(run[4] for run in runs) / (new - 1)
    figures |= {"ms_a_step": step * 1e3, "tok_s": rows / step, "tok_s_a_row": 1 / step}
    if model is not None:
        figures["share_of_limit"] = step_bytes(model, rows, prompt + new / 2) / bandwidth / step
        figures["read_gb_s"] = bandwidth / 1e9
    figures |= {"first_token_ms": statistics.median(run[3] for run in runs) * 1e3, "warm_up_s": warm_up}
    context.report(case, True, **figures, runs=len(runs), peak_mb=context.peak_mb())
    return step


def step_bytes(model: Decoder, rows: int, tokens: float) -> float:
    """What a decode step reads: see above."""
    return model.weight_bytes() + rows * tokens * model.new_cache(1, 1).nbytes


def hf_model(config: GPTConfig, device: torch.device):
    """transformers' model of this shape with random weights, on the device in fp32."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"n_layer": config.n_layer, "n_head": config.n_head, "n_embd": config.n_embd}
    torch.manual_seed(0)
    with torch.device(device):
        model = GPT2LMHeadModel(GPT2Config(**shape, n_positions=config.block_size, vocab_size=config.vocab_size))
    model.generation_config.eos_token_id = None  # random weights would not write it
    model.generation_config.pad_token_id = 0
    return model


def peer(context: Context, size: str) -> None:
    """transformers' generate in bf16: with a static cache and the compiling that goes with it, and as it comes.

    The dynamic cache of the large model is measured with one row only: a step takes as long with more rows.
    """
    model = hf_model(context.shape(size), context.device).to(torch.bfloat16).eval()
    ours = TorchDecoder(random_model(context.shape(size), "meta").to(torch.bfloat16))  # for its bytes
    bandwidth = read_bandwidth(context.device.type)
    new = context.pick(NEW, 12)
    for cache in ("static", None):
        for rows in ROWS if cache or size == "124m" else ROWS[:1]:
            name = f"{cache or 'dynamic'}-{rows}"
            with context.each(name, may_not_fit=True):
                ids = [random_ids(context.pick(PROMPT, 8), seed) for seed in range(rows)]
                idx = torch.tensor(ids, device=context.device)
                context.reset_peak()
                report(context, name, ours, bandwidth, lambda i=idx, c=cache: hf_write(context, model, i, new, c))


@torch.inference_mode()
def hf_write(context: Context, model, idx: torch.Tensor, new: int, cache: str | None) -> Written:
    """Continue the prompts by `generate`, whose stopping criterion notes when the first and last tokens are there."""
    times: list[float] = []

    def note(ids: torch.Tensor, scores: object, **rest: object) -> torch.Tensor:
        done = ids.shape[1] - idx.shape[1]
        if done in (1, new):
            times.append(context.clock())
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    options = {"cache_implementation": cache} if cache else {}
    start = context.clock()
    model.generate(
        idx,
        attention_mask=torch.ones_like(idx),
        max_new_tokens=new,
        do_sample=False,
        stopping_criteria=[note],
        **options,
    )
    return len(idx), idx.shape[1], new, times[0] - start, times[-1] - times[0]


def prefill(context: Context, size: str) -> None:
    """Reading 1,000 tokens in bf16, to the first new token, beside a forward pass of transformers with its cache."""
    config = context.shape(size)
    ids = random_ids(context.pick(1000, 100), 0)
    rate = matmul_rate(context)
    sampling = SamplingConfig(max_new_tokens=1, temperature=0)
    for case, make, read in (
        ("ours", random_model, lambda model: list(generate_tokens(model, [ids], sampling, [0]))),
        ("transformers", hf_model, lambda model: hf_read(context, model, ids)),
    ):
        model = make(config, context.device).to(torch.bfloat16).eval()
        report_prefill(context, case, config, len(ids), rate, partial(read, model))
        del model


@torch.inference_mode()
def hf_read(context: Context, model, ids: list[int]) -> int:
    idx = torch.tensor([ids], device=context.device)
    return int(model(idx, use_cache=True, logits_to_keep=1).logits.argmax())


def report_prefill(
    context: Context, case: str, config: GPTConfig, length: int, rate: float, read: Callable[[], object]
) -> None:
    with context.each(case):
        context.reset_peak()
        seconds = []
        for _ in range(13):
            start = context.clock()
            read()
            seconds.append(context.clock() - start)
        taken = statistics.median(seconds[3:])
        done = prefill_operations(config, length) / taken
        figures = {"ms": taken * 1e3, "tok_s": length / taken, "tflop_s": done / 1e12}
        figures |= {"share_of_datasheet": done / DATASHEET_BF16, "share_of_matmul": done / rate}
        context.report(case, math.isfinite(done), **figures, peak_mb=context.peak_mb())


def prefill_operations(config: GPTConfig, length: int) -> float:
    weights = 12 * config.n_layer * config.n_embd**2
    attention = 2 * config.n_layer * config.n_embd * length**2
    return 2 * weights * length + attention + 2 * config.vocab_size * config.n_embd
