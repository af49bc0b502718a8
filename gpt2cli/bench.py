"""How fast a model reads and writes, and how near that comes to the machine's own limit.

To decode a token, all weights are read once; so no program can write faster than the memory's bandwidth divided by
their bytes (the memory's roof in "Roofline: an insightful visual performance model", Williams et al. 2009).
"""

import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from gpt2cli.config import BenchConfig, SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.generation.decode import generate
from gpt2cli.inference.cpu.huge_pages import Arena
from gpt2cli.inference.cpu_decoder import CPUDecoder
from gpt2cli.model.device import peak_rss_mb
from gpt2cli.model.gpt import GPT

BUFFER_BYTES = 2**29
"""Read to measure the memory's bandwidth: more than the caches hold."""
PASSES = 10


@dataclass(frozen=True)
class Run:
    """One prompt, read and continued: the new tokens, and the seconds that it took."""

    prompt_tokens: int
    tokens: list[int]
    prefill_s: float  # to the first new token, of which the prompt's logits tell
    decode_s: float  # for all others

    @property
    def prefill_tok_s(self) -> float:
        return self.prompt_tokens / self.prefill_s

    @property
    def decode_tok_s(self) -> float:
        return (len(self.tokens) - 1) / self.decode_s


@dataclass(frozen=True)
class WarmedUp:
    """The first run, which does not count, is over; so is the measurement of the machine."""

    peak_rss_mb: float  # of loading and of one run; in MB of 2^20 bytes
    memory_bandwidth_gb_s: float  # in GB of 10^9 bytes


@dataclass(frozen=True)
class Speed:
    """What was measured, in the words of `gpt2 bench --json`. Tokens a second are medians."""

    model: str
    precision: str
    threads: int
    prefill_tok_s: float
    decode_tok_s: float
    load_s: float
    peak_rss_mb: float
    weight_bytes_per_token: int
    memory_bandwidth_gb_s: float
    roofline_tok_s: float
    roofline_fraction: float


def measure(model: GPT, config: BenchConfig) -> Iterator[WarmedUp | Run]:
    """Run once to warm up and then `config.repeats` times, and tell of each as it ends.

    The bandwidth is measured between these, a moment before what it is compared with, and after the peak of memory is
    known, to which its buffer would add. Raises UsageError if prompt and new tokens are more than the window holds.
    """
    total, window = config.prompt_tokens + config.new_tokens, model.config.block_size
    if total > window:
        raise UsageError(
            f"{config.prompt_tokens} prompt tokens and {config.new_tokens} new ones do not fit into the model's window "
            f"of {window}: ask for {total - window} fewer"
        )
    prompt = random.Random(config.seed).choices(range(model.config.vocab_size), k=config.prompt_tokens)
    run_once(model, prompt, config.new_tokens)
    peak = peak_rss_mb()
    yield WarmedUp(peak, memory_bandwidth(model.wpe.weight.device) / 1e9)
    for _ in range(config.repeats):
        yield run_once(model, prompt, config.new_tokens)


def summarize(name: str, model: GPT, load_s: float, warmed_up: WarmedUp, runs: list[Run]) -> Speed:
    """The speed of the model called `name`, which was loaded in so many seconds."""
    decode_tok_s = statistics.median(run.decode_tok_s for run in runs)
    weights = weight_bytes(model)
    roofline = warmed_up.memory_bandwidth_gb_s * 1e9 / weights
    return Speed(
        model=name,
        precision=model.precision,
        threads=torch.get_num_threads(),
        prefill_tok_s=statistics.median(run.prefill_tok_s for run in runs),
        decode_tok_s=decode_tok_s,
        load_s=load_s,
        peak_rss_mb=warmed_up.peak_rss_mb,
        weight_bytes_per_token=weights,
        memory_bandwidth_gb_s=warmed_up.memory_bandwidth_gb_s,
        roofline_tok_s=roofline,
        roofline_fraction=decode_tok_s / roofline,
    )


def run_once(model: GPT, prompt: list[int], new_tokens: int) -> Run:
    """Read the prompt and write exactly so many tokens, the likeliest each time, one a step, whatever they are."""
    greedy = SamplingConfig(max_new_tokens=new_tokens, temperature=0)
    tokens = generate(model, [prompt], greedy, [0], speculate=False, end=None)
    _wait_for(model.wpe.weight.device)
    start = time.perf_counter()
    _, first = next(tokens)
    read = time.perf_counter()
    rest = [token for _, token in tokens]  # the last one is here when the device is done
    return Run(len(prompt), [first, *rest], read - start, time.perf_counter() - read)


def weight_bytes(model: GPT) -> int:
    """The bytes of weights that a decode step reads: the blocks, the last norm and the head, as they are held.

    The one row of each embedding that a step looks up is left out.
    """
    if isinstance(model, CPUDecoder):
        return model.nbytes
    head: nn.Module = model.wte if model.lm_head is None else model.lm_head
    return sum(parameter.nbytes for part in (model.h, model.ln_f, head) for parameter in part.parameters())


@torch.inference_mode()
def memory_bandwidth(device: torch.device) -> float:
    """The bytes a second at which the device's memory can be read with the threads that there are: the best of passes.

    A sum is the fastest plain read that PyTorch has. As with packed weights, the memory is in large pages if it can be.
    """
    shape = (BUFFER_BYTES // 4,)
    buffer = Arena().zeros(shape, torch.float32) if device.type == "cpu" else torch.empty(shape, device=device)
    buffer.fill_(1)
    seconds = []
    for _ in range(PASSES):
        _wait_for(device)
        start = time.perf_counter()
        buffer.sum()
        _wait_for(device)
        seconds.append(time.perf_counter() - start)
    return buffer.nbytes / min(seconds)


def _wait_for(device: torch.device) -> None:
    """Until the device has done what it was told to."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
