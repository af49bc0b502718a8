"""Answers to many instructions, in batches of prompts with similar lengths."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from gpt2cli.config import SamplingConfig
from gpt2cli.generation.decode import generate_tokens
from gpt2cli.generation.text import Sample
from gpt2cli.inference.decoder import Decoder
from gpt2cli.untrusted import is_encodable

BATCH = 64
"""The most answers in a batch. More are no faster on a CPU."""
CACHE_BYTES = 2**30
"""The most memory for the keys and values of a batch."""


class Answer(NamedTuple):
    """A model's answer without white space at its ends.

    tokens         how many tokens the model wrote
    finish_reason  stop, eos or length; empty for answers from elsewhere, for which it is not known
    """

    text: str
    tokens: int
    finish_reason: str

    @classmethod
    def restored(cls, finding: Any, max_new_tokens: int) -> "Answer | None":
        """The answer that an interrupted run stored; None for a value of another form."""
        if not isinstance(finding, list) or [type(part) for part in finding] != [str, int, str]:
            return None
        found = cls(*finding)
        fits = is_encodable(found.text) and found.finish_reason in ("stop", "eos", "length")
        return found if fits and 0 <= found.tokens <= max_new_tokens else None


def answer(decoder: Decoder, prompts: dict[int, list[int]], sampling: SamplingConfig) -> Iterator[tuple[int, Answer]]:
    """Answer prompts, which are token ids by key; yield (key, answer) for each answer as soon as it is complete.

    The seed for key k is `sampling.seed + k`, so an answer does not depend on the others.
    """
    for key, sample in continue_prompts(decoder, prompts, sampling):
        yield key, Answer(sample.text.strip(), len(sample.tokens), sample.finish_reason or "length")


def continue_prompts(
    decoder: Decoder, prompts: dict[int, list[int]], sampling: SamplingConfig
) -> Iterator[tuple[int, Sample]]:
    """As `answer`, but yields the samples.

    Prompts of similar length share a batch. A complete sample leaves it.
    """
    # the longest first: if memory suffices for the first batch, it suffices for all
    keys = sorted(prompts, key=lambda key: (-len(prompts[key]), key))
    while keys:
        size = batch_size(decoder, len(prompts[keys[0]]) + sampling.max_new_tokens)
        batch, keys = keys[:size], keys[size:]
        yield from _continue_batch(decoder, batch, [prompts[key] for key in batch], sampling)


def _continue_batch(
    decoder: Decoder, keys: Sequence[int], prompts: Sequence[Sequence[int]], sampling: SamplingConfig
) -> Iterator[tuple[int, Sample]]:
    seeds = [(sampling.seed or 0) + key for key in keys]
    samples = [Sample(seed, sampling.stop) for seed in seeds]
    counts = [0] * len(keys)

    def is_finished(row: int) -> bool:
        return samples[row].finish_reason is not None

    for row, token in generate_tokens(decoder, prompts, sampling, seeds, is_finished):
        sample = samples[row]
        sample.push(token)
        counts[row] += 1
        if is_finished(row) or counts[row] == sampling.max_new_tokens:
            sample.finish()
            yield keys[row], sample


def batch_size(decoder: Decoder, length: int) -> int:
    """The number of sequences of this length whose keys and values fit into CACHE_BYTES, from 1 to BATCH."""
    row = decoder.new_cache(1, 1).nbytes * min(length, decoder.config.block_size)
    return min(BATCH, max(1, CACHE_BYTES // row))
