"""Reading prompts in pieces, so that a long prompt does not stall the other texts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gpt2cli.errors import DivergedError
from gpt2cli.generation.logprobs import TokenLogprobs, logprobs_after
from gpt2cli.inference.decoder import Decoder
from gpt2cli.serving.slots import Slots


@dataclass(eq=False)
class Prompt:
    """A prompt of a request. It is read once for all texts that continue it.

    top         the number of likeliest tokens for which log-probabilities are wanted at each place; None: none are
    texts_left  the number of texts that have not begun to continue it
    logits      (V,) after the last token; None until the prompt is read, and when no texts are left
    logprobs    those of the tokens from the second one on, if they are wanted
    """

    ids: tuple[int, ...]
    top: int | None
    texts_left: int = field(default=0, init=False)
    logits: NDArray[np.float32] | None = field(default=None, init=False)
    logprobs: tuple[TokenLogprobs, ...] = field(default=(), init=False)

    def begin_text(self) -> NDArray[np.float32]:
        """The logits, for one of the texts. The last one takes them away: a request can have hundreds of prompts."""
        assert self.logits is not None
        logits = self.logits
        self.texts_left -= 1
        if not self.texts_left:
            self.logits, self.logprobs = None, ()
        return logits


class Reading:
    """Reads `ids` into a slot, piece by piece. If they are a prompt, it gets its logits and log-probabilities.

    order   counts readings, so that the oldest is known
    prompt  None for a text that has filled the window and reads the newer half of its tokens again
    """

    def __init__(self, slot: int, ids: Sequence[int], order: int, prompt: Prompt | None = None) -> None:
        self.slot, self.ids, self.order, self.prompt = slot, ids, order, prompt
        self._done = 0
        self._logprobs = list[TokenLogprobs]()

    @property
    def left(self) -> int:
        """The number of tokens that are not read yet."""
        return len(self.ids) - self._done

    def read_piece(self, decoder: Decoder, slots: Slots) -> None:
        """Read the next piece. Raises DivergedError if a log-probability is not finite.

        The last piece may be twice as long, because a short prompt takes less time in one piece than in two.
        """
        size = slots.piece_tokens if self.left > 2 * slots.piece_tokens else self.left
        start, self._done, prompt = self._done, self._done + size, self.prompt
        hidden = slots.read(self.slot, self.ids[start : self._done], len(self.ids))
        if prompt is None:
            return
        if prompt.top is not None and not prompt.logprobs:
            after = self.ids[start + 1 : self._done + 1]
            self._logprobs += _checked(logprobs_after(decoder, hidden, after, prompt.top))
        if not self.left:
            prompt.logits = decoder.to_host(decoder.head(hidden[-1:]))[0]
            prompt.logprobs = prompt.logprobs or tuple(self._logprobs)


def _checked(found: list[TokenLogprobs]) -> list[TokenLogprobs]:
    """The same log-probabilities. Raises DivergedError if one is not finite."""
    if not all(math.isfinite(each.logprob) for each in found):
        raise DivergedError(
            "the model's logits are not finite in the prompt: try --precision fp32 or another checkpoint"
        )
    return found
