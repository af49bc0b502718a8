"""What the steps share: their context, models, records, and the command as a process."""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from gpt2cli.config import GPTConfig
from gpt2cli.inference.gpu.graph_decoder import GraphDecoder
from gpt2cli.model.device_choice import pick_device
from gpt2cli.model.gpt import GPT
from gpt2cli.model.peak_memory import peak_rss_mb
from gpt2cli.tokenizer import END_OF_TEXT_ID

VOCAB = 50257
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHAPES = {
    "124m": GPTConfig(),
    "1.5b": GPTConfig(n_layer=48, n_head=25, n_embd=1600),
}
TINY_SHAPES = {
    "124m": GPTConfig(n_layer=2, n_head=2, n_embd=64, block_size=128),
    "1.5b": GPTConfig(n_layer=3, n_head=4, n_embd=64, block_size=128),
}
SPREAD = 1.1
"""The standard deviation of a random model's logits: with GPT-2's initial weights they are nearly flat."""


class Context:
    """A step's surroundings: where to compute, how large, where to put files, and whom to tell results."""

    def __init__(self, step: str, device: str, tiny: bool, out: Path, work: Path, pipe: int) -> None:
        self.step, self.tiny, self.out, self.work = step, tiny, out, work
        self.device = torch.device(device)
        self.cuda = device == "cuda"
        self.failures = 0
        self._results = os.fdopen(pipe, "w", encoding="utf-8")
        self._card = ""
        self._since = time.perf_counter()

    def begin(self) -> None:
        """Set the precision that results are compared in, and start the clock. Raises if the device is not there."""
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        if self.cuda and not torch.cuda.is_available():
            raise RuntimeError("there is no CUDA device")
        pick_device(self.device.type)  # sets what the commands set
        self._card = torch.cuda.get_device_name() if self.cuda else "cpu"
        self._since = time.perf_counter()

    def report(self, case: str | None = None, ok: bool = True, **figures: object) -> None:
        """Tell a result at once; `seconds` is the time since the one before."""
        now = time.perf_counter()
        result = {"step": self.step, **({"case": case} if case else {}), "ok": bool(ok)}
        result |= {"seconds": round(now - self._since, 2), "card": self._card, "torch": torch.__version__}
        self._since = now
        self.failures += not ok
        self._results.write(json.dumps(result | {name: plain(value) for name, value in figures.items()}) + "\n")
        self._results.flush()

    @contextlib.contextmanager
    def each(self, case: str, may_not_fit: bool = False) -> Iterator[None]:
        """Report an error in here as the failure of this case, and let the step go on.

        With `may_not_fit`, running out of memory is a result like another, as for a peer.
        """
        try:
            yield
        except torch.cuda.OutOfMemoryError as error:
            self.report(case, may_not_fit, out_of_memory=True, error=str(error)[:200])
            self.reset_peak()
        except Exception as error:
            log = traceback.format_exc().splitlines()[-8:]
            self.report(case, False, error=f"{type(error).__name__}: {str(error)[:600]}", log=log)

    def skip(self, reason: str, case: str | None = None) -> None:
        self.report(case, skipped=reason)

    def pick(self, full, tiny):
        """The first for a real run, the second for a rehearsal."""
        return tiny if self.tiny else full

    def shape(self, size: str) -> GPTConfig:
        return (TINY_SHAPES if self.tiny else SHAPES)[size]

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def reset_peak(self) -> None:
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_mb(self) -> float:
        """Most memory, in MB of 2^20 bytes: allocated on the GPU, or resident without one."""
        return torch.cuda.max_memory_allocated() / 2**20 if self.cuda else peak_rss_mb()

    def clock(self) -> float:
        """The time, once the device has done what it was told to."""
        self.synchronize()
        return time.perf_counter()


def plain(value: object) -> object:
    """A figure as JSON has it: four digits are enough."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value


@torch.no_grad()
def random_model(config: GPTConfig, device: torch.device | str, seed: int = 0) -> GPT:
    """A model with random weights, drawn on the device, whose logits differ and that never ends a text by itself."""
    torch.manual_seed(seed)
    with torch.device(device):
        model = GPT(config)
    factor = SPREAD / (0.02 * config.n_embd**0.5)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.mul_(factor)
        else:
            parameter.add_(torch.randn_like(parameter) * 0.02)
    model.wte.weight[END_OF_TEXT_ID] = 0  # a logit of 0 is never the largest of so many
    return model.eval()


def use_graphs(context: Context, model: GPT, fused: bool | None = None) -> GraphDecoder:
    """A decoder as `--compile` makes it; without CUDA, one that runs the same steps one by one.

    `fused` says whether to use the Triton kernels; None: as the package decides.
    """
    return GraphDecoder(model, fused=fused if context.cuda else False)


def random_ids(count: int, seed: int) -> list[int]:
    """Token ids without the end of text."""
    return random.Random(seed).choices(range(END_OF_TEXT_ID), k=count)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The relative L2 error: |found - expected| / |expected|."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


WORDS = (  # noqa: SIM905
    "the of and to in that it was for on with as by at from this have be or one had not but what all were when "
    "we there can an your time which their said if do will each about how up out them then she many some so "
    "these would other into has more her two like him see who now"
).split()


def words(count: int, choose: random.Random) -> str:
    return " ".join(choose.choice(WORDS) for _ in range(count))


def alpaca_records(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Records whose lengths are like Alpaca's: lognormal, with a median of about 110 tokens in the template."""
    choose = random.Random(seed)
    records = []
    for _ in range(count):
        length = min(600, max(3, round(choose.lognormvariate(3.8, 0.8))))
        given = words(choose.randint(5, 20), choose) if choose.random() < 0.4 else ""
        instruction = f"Explain {words(choose.randint(6, 14), choose)}."
        records.append({"instruction": instruction, "input": given, "output": f"It is {words(length, choose)}."})
    return records


def write_records(path: Path, count: int, seed: int = 0) -> Path:
    path.write_text(json.dumps(alpaca_records(count, seed)), encoding="utf-8")
    return path


def write_text(path: Path, sentences: int, seed: int = 0) -> Path:
    choose = random.Random(seed)
    path.write_text(" ".join(f"It is {words(12, choose)}." for _ in range(sentences)), encoding="utf-8")
    return path


COMMAND = [sys.executable, "-m", "gpt2cli"]


def cli(
    *arguments: object,
    code: int = 0,
    command: Sequence[str] = COMMAND,
    env: dict[str, str] | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run the command. Raises RuntimeError with the end of what it said if it leaves with another code."""
    done = subprocess.run(
        [*command, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | (env or {}),
    )
    if done.returncode != code:
        said = " | ".join(done.stderr.strip().splitlines()[-8:])
        raise RuntimeError(f"exit code {done.returncode}, not {code}, of {' '.join(map(str, arguments))}: {said}")
    return done
