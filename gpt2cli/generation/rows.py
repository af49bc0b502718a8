"""The texts of one batch: their tokens so far, and when each ends."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gpt2cli.generation.sampling import Sampler
from gpt2cli.inference.decoder import Decoder

if TYPE_CHECKING:
    from gpt2cli.generation.logprobs import KeptLogprobs


class Rows:
    """The texts of a batch, one a row. They grow until each has ended.

    contexts   the tokens of each row: the prompt and the new tokens
    limits     the largest number of tokens in each row
    logprobs   gets the log-probabilities of the tokens that `choose` chooses, if they are wanted
    """

    def __init__(
        self,
        decoder: Decoder,
        prompts: Sequence[Sequence[int]],
        sampler: Sampler,
        is_finished: Callable[[int], bool],
        end: int | None,
        logprobs: "KeptLogprobs | None" = None,
    ) -> None:
        self.sampler, self.logprobs = sampler, logprobs
        self.contexts = [list(prompt) for prompt in prompts]
        self.limits = [len(prompt) + sampler.config.max_new_tokens for prompt in prompts]
        self._decoder, self._is_finished, self._end = decoder, is_finished, end

    def choose(self, logits: Any, rows: Sequence[int]) -> list[tuple[int, int]]:
        """Choose and append a token to each of `rows`, from logits (len(rows), V). Returns pairs of row and token."""
        tokens = self.sampler.choose(logits, [self.contexts[row] for row in rows], rows)
        if self.logprobs is not None:
            self.logprobs.add(self._decoder.to_host(logits), rows, tokens)
        return self.append(rows, tokens)

    def append(self, rows: Sequence[int], tokens: Sequence[int]) -> list[tuple[int, int]]:
        """Append a token to each of `rows`. Returns pairs of row and token."""
        pairs = list(zip(rows, tokens, strict=True))
        for row, token in pairs:
            self.contexts[row].append(token)
        return pairs

    def continuing(self, rows: Sequence[int]) -> list[int]:
        """Those of `rows` that do not end with their newest token."""
        return [row for row in rows if self.continues(row)]

    def continues(self, row: int) -> bool:
        context = self.contexts[row]
        return context[-1] != self._end and len(context) < self.limits[row] and not self._is_finished(row)
