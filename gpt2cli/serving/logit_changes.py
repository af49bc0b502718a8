"""The changes of logits that only OpenAI's API has: frequency and presence penalties, and a bias for single tokens."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

EXCLUDED = -100
"""The smallest bias of OpenAI's API: the token is never chosen."""


class LogitChanges:
    """The changes for one text. They come before the repetition penalty and the temperature.

    From the logit of a token that was generated c times in this text, c * `frequency_penalty` is subtracted, and
    `presence_penalty` if c > 0, as OpenAI's documentation defines them. Then `bias[token]` is added; a bias of EXCLUDED
    or less excludes the token. Tokens of the prompt do not count.
    """

    def __init__(self, frequency_penalty: float, presence_penalty: float, bias: Mapping[int, float]) -> None:
        self._frequency_penalty, self._presence_penalty = frequency_penalty, presence_penalty
        self._bias_tokens = np.array(list(bias), np.int64)
        values = np.array(list(bias.values()), np.float32)
        self._bias = np.where(values > EXCLUDED, values, -np.inf).astype(np.float32)
        self._counts = Counter[int]()

    def count(self, token: int) -> None:
        """Count a token that was generated."""
        if self._frequency_penalty or self._presence_penalty:
            self._counts[token] += 1

    def changed(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The changed logits (V,). Without changes, it is the same array."""
        if not self._counts and not self._bias_tokens.size:
            return logits
        logits = logits.copy()
        tokens = np.array(list(self._counts), np.int64)
        counts = np.array(list(self._counts.values()), np.float32)
        logits[tokens] -= counts * np.float32(self._frequency_penalty) + np.float32(self._presence_penalty)
        with np.errstate(invalid="ignore"):  # an infinite logit becomes NaN, which the sampler finds
            logits[self._bias_tokens] += self._bias
        return logits
