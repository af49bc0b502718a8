"""From logits to the next token: repetition penalty, temperature, top-k, top-p, min-p, and the draw.

A decoder finds the candidates, the tokens with the largest logits. A new option that needs only these is a step of
`cut`; `inference/gpu/torch_sampling.py` has the same steps for CUDA graphs. `draw` relies on the order: an option may
cut tokens only at the end of a row. The Triton kernels must apply an option or refuse it (see `chooses` in
`inference/gpu/fused_step.py`). CONTRIBUTING.md lists the other places.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2cli.config import VOCAB_SIZE, SamplingConfig
from gpt2cli.errors import DivergedError
from gpt2cli.inference.decoder import Candidates


class Sampler:
    """Chooses the next tokens of a batch. Row i has a random generator with the seed `seeds[i]`.

    The generators give one uniform number per token, so that a seed gives the same text on every device and in every
    batch. `candidates` is the decoder's method.
    """

    def __init__(self, config: SamplingConfig, seeds: Sequence[int], candidates: Candidates) -> None:
        self.config = config
        self._candidates = candidates
        self._count = 1 if config.temperature == 0 else config.top_k or VOCAB_SIZE
        self._streams = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
        self._seen = [_Seen() for _ in seeds]

    def choose(self, logits: Any, contexts: Sequence[Sequence[int]], rows: Sequence[int]) -> list[int]:
        """The next token of each of `rows`, given their logits (len(rows), V) and their tokens so far, `contexts`.

        The logits are the decoder's. Raises DivergedError if a largest logit is not finite.
        """
        probabilities, ids = self.distribution(logits, contexts, rows)
        uniform = np.array([self._streams[row].random() for row in rows])
        return list(map(int, draw(probabilities, ids, uniform)))

    def distribution(
        self, logits: Any, contexts: Sequence[Sequence[int]], rows: Sequence[int]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The probabilities (B, K) with which `choose` chooses, the largest first, and the tokens' ids (B, K).

        The arguments and errors are those of `choose`.
        """
        penalty = self.config.repetition_penalty
        seen = []
        if penalty != 1:
            seen = [self._seen[row].of(context) for row, context in zip(rows, contexts, strict=True)]
        values, ids = self._candidates(logits, self._count, seen, penalty)
        check_finite(values[:, 0].tolist(), contexts)
        if self.config.temperature == 0:
            return np.ones((len(ids), 1)), ids[:, :1]
        return cut(values, self.config), ids

    def uniform(self, steps: int) -> NDArray[np.float64]:
        """The random numbers (steps, B) for the next `steps` tokens of all rows."""
        return np.stack([stream.random(steps) for stream in self._streams], axis=1)


def check_finite(best: Sequence[float], contexts: Sequence[Sequence[int]]) -> None:
    """Raise DivergedError if a row's largest logit, `best`, is not finite."""
    advice = "try --precision fp32, another checkpoint, or a milder repetition penalty"
    for value, context in zip(best, contexts, strict=True):
        if not -math.inf < value < math.inf:
            raise DivergedError(f"the model's logits are not finite at token {len(context)}: {advice}")


class _Seen:
    """The distinct tokens of a row's context. The context only grows, so each call reads only its new tokens."""

    def __init__(self) -> None:
        self._length, self._tokens = 0, dict[int, None]()
        self._ids = np.empty(0, np.int64)

    def of(self, context: Sequence[int]) -> NDArray[np.int64]:
        """The distinct tokens of the context, which must begin with the context of the last call."""
        fresh = [token for token in dict.fromkeys(context[self._length :]) if token not in self._tokens]
        if fresh:
            self._tokens |= dict.fromkeys(fresh)
            self._ids = np.concatenate([self._ids, np.array(fresh, np.int64)])
        self._length = len(context)
        return self._ids


def cut(values: NDArray[np.float32], config: SamplingConfig) -> NDArray[np.float64]:
    """The probabilities (B, K) of the candidates, whose logits `values` (B, K) are sorted from the largest on.

    Temperature, after which top-k has chosen the candidates, then top-p (Holtzman et al. 2019, nucleus sampling) and
    min-p (Nguyen et al. 2024). Each applies to the tokens that the one before it keeps, as in transformers. Top-k keeps
    all tokens whose logits equal the k-th: then K is larger than k. Tokens that are cut have probability 0.
    """
    scaled = values.astype(np.float64)  # in fp32, a temperature near 0 would become 0
    with np.errstate(over="ignore"):  # a difference divided by such a temperature is -inf
        probabilities = np.exp((scaled - scaled[:, :1]) / config.temperature)
    probabilities /= _sums(probabilities)
    if config.top_p < 1:
        before = probabilities.cumsum(axis=1) - probabilities
        probabilities[before >= config.top_p] = 0
    if config.min_p > 0:
        probabilities[probabilities < config.min_p * probabilities[:, :1]] = 0
    if config.top_p < 1 or config.min_p > 0:
        probabilities /= _sums(probabilities)
    return probabilities


def _sums(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum (B, 1) of each row, added up in order: zeros at its end, beside a longer row, change no digit."""
    sums: NDArray[np.float64] = numbers.cumsum(axis=1)[:, -1:]
    return sums


def draw(probabilities: NDArray[np.float64], ids: NDArray[np.int64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """One of the `ids` (B, K) of each row, (B,), where the cumulative `probabilities` (B, K) exceed `uniform` (B,).

    `uniform` is in [0, 1). Probabilities of 0 are at the end of a row.
    """
    index = (probabilities.cumsum(axis=1) <= uniform[:, None]).sum(axis=1)
    last = np.count_nonzero(probabilities, axis=1) - 1  # rounding may end the sum a little below 1
    chosen: NDArray[np.int64] = ids[np.arange(len(ids)), np.minimum(index, last)]
    return chosen
