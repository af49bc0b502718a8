"""From a prompt to texts, over `decode.generate_tokens`: truncation, streaming, stop texts, and speeds."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from gpt2cli import tokenizer
from gpt2cli.config import SamplingConfig
from gpt2cli.generation.decode import generate_tokens, random_seed
from gpt2cli.generation.logprobs import KeptLogprobs, TokenLogprobs
from gpt2cli.hub.tokenizer_files import check_tokenizer
from gpt2cli.inference.decoder import Decoder

if TYPE_CHECKING:
    from gpt2cli.model.gpt import GPT


class Sample:
    """One continuation while it is generated: its text, its token ids, and why it ended.

    tokens    without one that reaches into a stop text, although `text` has the characters of it before the stop text
    logprobs  if they are wanted, the log-probabilities of each of `tokens`; complete when the sample has ended
    """

    def __init__(self, seed: int, stop: tuple[str, ...] = ()) -> None:
        self.seed = seed
        self.text = ""
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprobs] = []
        self.finish_reason: Literal["length", "stop", "eos"] | None = None
        self._stop = stop
        self._characters = tokenizer.StreamDecoder()
        self._ends: list[float] = []  # the length of the text after each token; infinite within a character
        self._held = ""  # may be the beginning of a stop text
        self._settled = 0

    @property
    def settled(self) -> int:
        """The number of `tokens` whose characters are all in `text`. It only grows; after `finish`, it is all of them.

        What follows cannot remove these tokens: they end before any stop text.
        """
        for place in range(self._settled, len(self._ends)):
            if self._ends[place] <= len(self.text):
                self._settled = place + 1
        return self._settled

    def push(self, token: int) -> str:
        """Add the next token. Returns the new text that cannot belong to a stop text, possibly none."""
        if token == tokenizer.END_OF_TEXT_ID:
            self.finish_reason = "eos"
            return ""
        self.tokens.append(token)
        fresh = self._characters.push(token)
        length = len(self.text) + len(self._held) + len(fresh)
        self._ends.append(length if self._characters.is_empty else math.inf)
        return self._release(fresh)

    def finish(self) -> str:
        """End the sample. Returns the rest of its text."""
        rest = ""
        if self.finish_reason != "stop":
            rest = self._release(self._characters.finish(), last=True)
            self.finish_reason = self.finish_reason or "length"
        self._settled = len(self.tokens)
        del self.logprobs[len(self.tokens) :]  # of the end of text, or of tokens that reach into a stop text
        return rest

    def _release(self, fresh: str, last: bool = False) -> str:
        """Add fresh text. Move what cannot belong to a stop text, or all if it is the `last`, to `text`. Return it."""
        self._held += fresh
        found = [self._held.index(stop) for stop in self._stop if stop in self._held]
        end = min(found) if found else len(self._held) - (0 if last else self._possible_stop())
        shown, self._held = self._held[:end], self._held[end:]
        self.text += shown
        if found:
            self.finish_reason = "stop"
            while self._ends and self._ends[-1] > len(self.text):  # drop tokens that reach into the stop text
                self._ends.pop()
                self.tokens.pop()
        return shown

    def _possible_stop(self) -> int:
        """The number of characters at the end of the held text that may be the beginning of a stop text."""
        for length in range(len(self._held), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0


class TextGeneration:
    """Continues one prompt `num_samples` times in one batch. An iteration over the object generates the texts.

    The prompt is token ids; `from_text` takes a text. Raises CheckpointError for a model with another tokenizer.

    dropped        the number of tokens at the beginning of the prompt that do not fit into the window
    prompt_ids     the tokens that the model reads; `<|endoftext|>` if the prompt is empty
    samples        the continuations; complete after the iteration
    logprobs       if not None, the samples get the log-probabilities of each new token and of this many likeliest
                   tokens at its place (0 to MOST_LOGPROBS). They are natural logarithms of the model's probabilities,
                   before temperature, top-k, top-p, min-p and the repetition penalty.
    prefill_tok_s  prompt tokens per second, until the first new token
    decode_tok_s   new tokens per second after the first of each sample; None if there are none
    """

    def __init__(
        self, model: "Decoder | GPT", prompt: Sequence[int], sampling: SamplingConfig, logprobs: int | None = None
    ) -> None:
        check_tokenizer(model)
        self.model = model
        self.sampling, self.logprobs = sampling, logprobs
        self.dropped = max(0, len(prompt) - model.config.block_size)
        self.prompt_ids = _what_is_read(prompt, model.config.block_size)
        seed = random_seed() if sampling.seed is None else sampling.seed
        self.samples = [Sample(seed + i, sampling.stop) for i in range(sampling.num_samples)]
        self._kept = None if logprobs is None else KeptLogprobs(logprobs, [sample.logprobs for sample in self.samples])
        self.prefill_tok_s: float | None = None
        self.decode_tok_s: float | None = None

    @classmethod
    def from_text(
        cls, model: "Decoder | GPT", prompt: str, sampling: SamplingConfig, logprobs: int | None = None
    ) -> "TextGeneration":
        """Continues a text. `<|endoftext|>` in it is the special token.

        Raises DataError for a text that is not valid Unicode, and CheckpointError for a model with another tokenizer.
        """
        return cls(model, tokenizer.encode(prompt), sampling, logprobs)

    def __iter__(self) -> Iterator[tuple[Sample, str]]:
        """Yield (sample, new text) for text that cannot belong to a stop text."""
        tokens = generate_tokens(
            self.model,
            [self.prompt_ids] * len(self.samples),
            self.sampling,
            [sample.seed for sample in self.samples],
            is_finished=lambda row: self.samples[row].finish_reason is not None,
            logprobs=self._kept,
        )
        start = first = time.perf_counter()
        n = 0
        for row, token in tokens:
            n += 1
            if n == 1:
                first = time.perf_counter()
                self.prefill_tok_s = len(self.prompt_ids) / (first - start)
            text = self.samples[row].push(token)
            if text:
                yield self.samples[row], text
        if n > len(self.samples):
            self.decode_tok_s = (n - len(self.samples)) / (time.perf_counter() - first)
        for sample in self.samples:
            text = sample.finish()
            if text:
                yield sample, text


def complete(model: "Decoder | GPT", prompts: Sequence[Sequence[int]], sampling: SamplingConfig) -> list[Sample]:
    """Continue each of several prompts once, in one batch. The prompts are token ids.

    Sample i has the seed of `sampling` + i. Of a prompt that is longer than the window, the model reads the end.
    Raises CheckpointError for a model with another tokenizer.
    """
    check_tokenizer(model)
    seed = random_seed() if sampling.seed is None else sampling.seed
    samples = [Sample(seed + i, sampling.stop) for i in range(len(prompts))]
    ids = [_what_is_read(prompt, model.config.block_size) for prompt in prompts]
    for row, token in generate_tokens(
        model, ids, sampling, [sample.seed for sample in samples], lambda row: samples[row].finish_reason is not None
    ):
        samples[row].push(token)
    for sample in samples:
        sample.finish()
    return samples


def _what_is_read(prompt: Sequence[int], block_size: int) -> list[int]:
    """The last tokens of a prompt, as many as the window has; `<|endoftext|>` if the prompt is empty."""
    return list(prompt[-block_size:]) or [tokenizer.END_OF_TEXT_ID]


def stream(model: "Decoder | GPT", prompt: str, sampling: SamplingConfig | None = None) -> Iterator[str]:
    """Continue a prompt once; yield the continuation in pieces of whole characters.

    `<|endoftext|>` in the prompt is the special token.
    """
    for _, text in TextGeneration.from_text(model, prompt, replace(sampling or SamplingConfig(), num_samples=1)):
        yield text


def generate(model: "Decoder | GPT", prompt: str, sampling: SamplingConfig | None = None) -> str:
    """Continue a prompt once; return the continuation. TextGeneration generates several in one batch.

    `<|endoftext|>` in the prompt is the special token.
    """
    return "".join(stream(model, prompt, sampling))
