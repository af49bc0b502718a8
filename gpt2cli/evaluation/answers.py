"""Answers to many instructions, in batches that waste little, each as soon as it is finished."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gpt2cli.config import SamplingConfig
from gpt2cli.generation.decode import generate
from gpt2cli.generation.text import Sample
from gpt2cli.model.gpt import GPT
from gpt2cli.untrusted import is_encodable

BATCH = 64
"""Answers written at once, at the most; more bring no more speed on a processor ..."""
CACHE_BYTES = 2**30
"""... and fewer are, if their keys and values would take more memory than this."""


@dataclass(frozen=True)
class Answer:
    """What a model said, without blank space at the ends, in how many tokens, and why it ended there.

    finish_reason  stop, eos or length; empty if nobody knows, as of answers that were made elsewhere
    """

    text: str
    tokens: int
    finish_reason: str

    @classmethod
    def restored(cls, finding: Any, max_new_tokens: int) -> "Answer | None":
        """The answer that an interrupted run kept; None for a finding of any other form."""
        if not isinstance(finding, list) or [type(part) for part in finding] != [str, int, str]:
            return None
        text, tokens, finish_reason = finding
        fits = is_encodable(text) and 0 <= tokens <= max_new_tokens and finish_reason in ("stop", "eos", "length")
        return cls(text, tokens, finish_reason) if fits else None


def answer(model: GPT, prompts: dict[int, list[int]], sampling: SamplingConfig) -> Iterator[tuple[int, Answer]]:
    """Answer each prompt, tokens under a key of the caller's; yield (key, answer) as they are finished.

    Prompts of like length share a batch, an answer that is finished leaves it, and key k draws with the sampling's
    seed + k. So an answer does not depend on the company it is in.
    """
    keys = sorted(prompts, key=lambda key: (-len(prompts[key]), key))  # the longest first: whoever fits, all do
    while keys:
        size = batch_size(model, len(prompts[keys[0]]) + sampling.max_new_tokens)
        batch, keys = keys[:size], keys[size:]
        yield from _answer_batch(model, batch, [prompts[key] for key in batch], sampling)


def _answer_batch(
    model: GPT, keys: Sequence[int], prompts: Sequence[Sequence[int]], sampling: SamplingConfig
) -> Iterator[tuple[int, Answer]]:
    seeds = [(sampling.seed or 0) + key for key in keys]
    samples = [Sample(seed, sampling.stop) for seed in seeds]
    counts = [0] * len(keys)

    def is_finished(row: int) -> bool:
        return samples[row].finish_reason is not None

    for row, token in generate(model, prompts, sampling, seeds, is_finished):
        sample = samples[row]
        sample.push(token)
        counts[row] += 1
        if is_finished(row) or counts[row] == sampling.max_new_tokens:
            sample.finish()
            yield keys[row], Answer(sample.text.strip(), len(sample.tokens), sample.finish_reason or "length")


def batch_size(model: GPT, length: int) -> int:
    """How many sequences of this length the cache may hold."""
    config = model.config
    a_token = 2 * config.n_layer * config.n_embd * model.ln_f.weight.element_size()
    return min(BATCH, max(1, CACHE_BYTES // (a_token * min(length, config.block_size))))
