"""Measures a model's speed. The machine's memory sets a limit to it.

To decode a token, a program reads all weights once. So it cannot decode faster than the memory's bandwidth divided by
the bytes of the weights (the memory roof in "Roofline: an insightful visual performance model", Williams et al. 2009).
"""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from gpt2cli import background
from gpt2cli.config import BenchConfig, SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.generation.decode import generate_tokens
from gpt2cli.inference.decoder import Decoder, has_kernels
from gpt2cli.model.peak_memory import peak_rss_mb


@dataclass(frozen=True)
class Run:
    """The new tokens after one prompt, and the seconds for reading and for decoding."""

    prompt_tokens: int
    tokens: list[int]
    prefill_s: float  # until the first new token, which the prompt's logits determine
    decode_s: float  # for the other new tokens

    @property
    def prefill_tok_s(self) -> float:
        return self.prompt_tokens / self.prefill_s

    @property
    def decode_tok_s(self) -> float:
        return (len(self.tokens) - 1) / self.decode_s


@dataclass(frozen=True)
class Measurement:
    """The timed runs, the peak memory of loading and the warm-up run, and the bandwidth of the device's memory."""

    runs: list[Run]
    peak_rss_mb: float  # in MB of 2^20 bytes
    memory_bandwidth_gb_s: float  # in GB of 10^9 bytes


@dataclass(frozen=True)
class Speed:
    """The results, with the names that `gpt2 bench --json` prints. Tokens per second are medians."""

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


def measure(decoder: Decoder, config: BenchConfig, advance: Callable[[], None] = lambda: None) -> Measurement:
    """Run once to warm up, then `config.repeats` times. Calls `advance` after each run.

    The bandwidth is measured after the warm-up run: shortly before the runs that it is compared with, and after the
    peak memory is known, which its buffer would raise. Raises UsageError if the prompt and the new tokens do not fit
    into the window.
    """
    total, window = config.prompt_tokens + config.new_tokens, decoder.config.block_size
    if total > window:
        raise UsageError(
            f"{config.prompt_tokens} prompt tokens and {config.new_tokens} new ones do not fit into the model's window "
            f"of {window}: ask for {total - window} fewer"
        )
    prompt = random.Random(config.seed).choices(range(decoder.config.vocab_size), k=config.prompt_tokens)
    background.finish()  # packed weights are being written to disk, which would disturb the measurement
    run_once(decoder, prompt, config.new_tokens)
    peak, bandwidth = peak_rss_mb(), memory_bandwidth(decoder) / 1e9
    advance()
    runs = []
    for _ in range(config.repeats):
        runs.append(run_once(decoder, prompt, config.new_tokens))
        advance()
    return Measurement(runs, peak, bandwidth)


def summarize(name: str, decoder: Decoder, load_s: float, measured: Measurement) -> Speed:
    """The results for the model called `name`, which took `load_s` seconds to load."""
    decode_tok_s = statistics.median(run.decode_tok_s for run in measured.runs)
    weights = decoder.weight_bytes()
    roofline = measured.memory_bandwidth_gb_s * 1e9 / weights
    return Speed(
        model=name,
        precision=decoder.precision,
        threads=decoder.threads,
        prefill_tok_s=statistics.median(run.prefill_tok_s for run in measured.runs),
        decode_tok_s=decode_tok_s,
        load_s=load_s,
        peak_rss_mb=measured.peak_rss_mb,
        weight_bytes_per_token=weights,
        memory_bandwidth_gb_s=measured.memory_bandwidth_gb_s,
        roofline_tok_s=roofline,
        roofline_fraction=decode_tok_s / roofline,
    )


def run_once(decoder: Decoder, prompt: list[int], new_tokens: int) -> Run:
    """Read the prompt and decode exactly `new_tokens` tokens, greedily, one per step."""
    greedy = SamplingConfig(max_new_tokens=new_tokens, temperature=0)
    tokens = generate_tokens(decoder, [prompt], greedy, [0], speculate=False, end=None)
    _wait_for(decoder.device)
    start = time.perf_counter()
    _, first = next(tokens)
    read = time.perf_counter()
    rest = [token for _, token in tokens]  # the device has finished when the last token is here
    return Run(len(prompt), [first, *rest], read - start, time.perf_counter() - read)


def memory_bandwidth(decoder: Decoder) -> float:
    """The bytes per second at which the decoder's device can read its memory."""
    if decoder.device == "cpu" and has_kernels():
        from gpt2cli.inference.cpu.bandwidth import read_bandwidth

        return read_bandwidth(decoder.threads, decoder.precision)
    from gpt2cli.inference.gpu import bandwidth  # imports torch

    return bandwidth.read_bandwidth(decoder.device)


def _wait_for(device: str) -> None:
    """Wait until the device has finished its work."""
    if device != "cpu":
        from gpt2cli.inference.gpu.bandwidth import wait_for

        wait_for(device)
