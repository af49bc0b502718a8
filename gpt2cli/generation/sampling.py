"""From logits to the next token: repetition penalty, temperature, top-k, top-p, min-p, and the draw.

A new option that needs only the sorted logits is a step of `cut`, which CUDA graphs contain too. `draw` relies on the
order: an option may cut tokens only at the end of a row. The Triton kernels must apply an option or refuse it (see
`chooses` in `inference/gpu/fused_step.py`). CONTRIBUTING.md lists the other places.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2cli.config import VOCAB_SIZE, SamplingConfig
from gpt2cli.errors import DivergedError

TABLE_ROWS = 32
"""Rows of the table in which `largest` searches. With 50,257 logits, this number is the fastest."""
TIES = 128
"""Tokens beyond top-k that `choose_on_device` compares with the k-th: dozens of 16-bit logits may be equal to it."""


class Sampler:
    """Chooses the next tokens of a batch. Row i has a random generator with the seed `seeds[i]`.

    The generators are on the CPU and give one uniform number per token, so that a seed gives the same text on every
    device and in every batch.
    """

    def __init__(self, config: SamplingConfig, seeds: Sequence[int]) -> None:
        self.config = config
        self._streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._seen = [_Seen() for _ in seeds]

    def choose(self, logits: Tensor, contexts: Sequence[Sequence[int]], rows: Sequence[int]) -> list[int]:
        """The next token of each of `rows`, given their logits (len(rows), V) and their tokens so far, `contexts`.

        Raises DivergedError if a largest logit is not finite.
        """
        logits = logits[:, :VOCAB_SIZE].float()  # the others pad a checkpoint's table and are no tokens
        if self.config.repetition_penalty != 1:
            seen = [self._seen[row].of(context) for row, context in zip(rows, contexts, strict=True)]
            logits = penalise_repetition(logits, seen, self.config.repetition_penalty)
        if self.config.temperature == 0:
            best, ids = logits.max(dim=-1)
            check_finite(best.tolist(), contexts)
            return [int(token) for token in ids]
        probabilities, ids = distribution(logits, self.config)
        check_finite(probabilities[:, 0].tolist(), contexts)
        uniform = torch.stack([torch.rand((), generator=self._streams[row], dtype=torch.float64) for row in rows])
        return [int(token) for token in draw(probabilities, ids, uniform)]

    def choose_on_device(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The next tokens (B,) for logits (B, V), and each row's largest logit (B,), to be checked by `check_finite`.

        `uniform` (B,) comes from the method `uniform`. Nothing waits for the device, and no shape depends on values, so
        that a CUDA graph can contain this.
        """
        if self.config.temperature == 0:
            best, ids = logits.max(dim=-1)
            return ids, best
        k, V = self.config.top_k, logits.shape[-1]
        values, ids = by_id(*largest(logits, min(k + TIES, V))) if k else largest(logits, V)
        return draw(cut(values, self.config), ids, uniform), values[:, 0]

    def uniform(self, steps: int) -> Tensor:
        """The random numbers (steps, B) for the next `steps` tokens of all rows."""
        return torch.stack([torch.rand(steps, generator=s, dtype=torch.float64) for s in self._streams], dim=1)


def check_finite(best: Sequence[float], contexts: Sequence[Sequence[int]]) -> None:
    """Raise DivergedError if a row's largest logit or probability, `best`, is not finite."""
    advice = "try --precision fp32, another checkpoint, or a milder repetition penalty"
    for value, context in zip(best, contexts, strict=True):
        if not -math.inf < value < math.inf:
            raise DivergedError(f"the model's logits are not finite at token {len(context)}: {advice}")


class _Seen:
    """The distinct tokens of a row's context. The context only grows, so each call reads only its new tokens."""

    def __init__(self) -> None:
        self._length, self._tokens = 0, dict[int, None]()

    def of(self, context: Sequence[int]) -> list[int]:
        """The distinct tokens of the context, which must begin with the context of the last call."""
        self._tokens |= dict.fromkeys(context[self._length :])
        self._length = len(context)
        return list(self._tokens)


def penalise_repetition(logits: Tensor, seen: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Logits (B, V), in which those of each row's `seen` tokens are divided by the penalty, or multiplied if negative.

    No token may occur twice in a row of `seen`. Keskar et al. 2019, "CTRL", section 4.1; as in transformers, the
    penalty also makes negative logits smaller.
    """
    logits = logits.clone()
    for row, tokens in zip(logits, seen, strict=True):
        places = torch.tensor(tokens, dtype=torch.long, device=logits.device)
        values = row[places]
        row[places] = torch.where(values > 0, values / penalty, values * penalty)
    return logits


def distribution(logits: Tensor, config: SamplingConfig) -> tuple[Tensor, Tensor]:
    """The probabilities (B, K) of the tokens that may come next, most likely first, and their ids (B, K).

    Temperature, then top-k, top-p (Holtzman et al. 2019, nucleus sampling) and min-p (Nguyen et al. 2024). Each applies
    to the tokens that the one before it keeps, as in transformers. Top-k keeps all tokens whose logits equal the k-th:
    then K is larger than k. Tokens that are cut have probability 0.
    """
    V = logits.shape[-1]
    k = min(config.top_k or V, V)
    values, ids = (found.cpu() for found in largest(logits, min(k + 1, V)))  # sorted, and few
    if k < V:
        if bool((values[:, k] == values[:, k - 1]).any()):
            count = (logits >= values[:, k - 1 : k].to(logits.device)).sum(dim=-1).max()
            values, ids = (found.cpu() for found in largest(logits, max(k, int(count))))
        else:
            values, ids = values[:, :k], ids[:, :k]
        if bool((values[:, 1:] == values[:, :-1]).any()):
            values, ids = by_id(values, ids)
    return cut(values, config), ids


def cut(values: Tensor, config: SamplingConfig) -> Tensor:
    """The probabilities (B, K) for the largest logits (B, K), sorted, by the steps that `distribution` lists."""
    k = config.top_k
    if 0 < k < values.shape[-1]:
        values = values.masked_fill(values < values[:, k - 1 : k], -math.inf)
    values = values.double()  # in fp32, a temperature near 0 would become 0
    probabilities = ((values - values[:, :1]) / config.temperature).softmax(dim=-1)
    if config.top_p < 1:
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(before >= config.top_p, 0)
    if config.min_p > 0:
        probabilities = probabilities.masked_fill(probabilities < config.min_p * probabilities[:, :1], 0)
    return probabilities / probabilities.sum(dim=-1, keepdim=True)


def largest(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `logits.topk(k)` for (B, V), in half the time. With k = V, equal logits are in the order of their ids.

    The logits become a table with TABLE_ROWS rows. The k largest are in the k columns that have the largest maxima.
    """
    if k == logits.shape[-1]:
        values, ids = logits.sort(dim=-1, descending=True, stable=True)
        return values, ids
    columns = -(-logits.shape[-1] // TABLE_ROWS)
    if k >= columns // 2:
        values, ids = logits.topk(k, dim=-1)
        return values, ids
    table = F.pad(logits, (0, TABLE_ROWS * columns - logits.shape[-1]), value=-math.inf).view(-1, TABLE_ROWS, columns)
    chosen = table.amax(dim=1).topk(k).indices  # (B, k)
    candidates = table.gather(2, chosen[:, None].expand(-1, TABLE_ROWS, -1)).flatten(1)
    values, places = candidates.topk(k)
    ids = places // k * columns + chosen.gather(1, places % k)
    return values, ids


def by_id(values: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted logits (B, K) and their ids (B, K), with equal logits in the order of their ids.

    So a seed gives the same text on every device: `topk` returns equal numbers in any order.
    """
    ids, order = ids.sort(dim=-1)
    values, order = values.gather(-1, order).sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(-1, order)


def draw(probabilities: Tensor, ids: Tensor, uniform: Tensor) -> Tensor:
    """One of the `ids` (B, K) of each row, (B,), where the cumulative `probabilities` (B, K) exceed `uniform` (B,).

    `uniform` is in [0, 1). Probabilities of 0 are at the end of a row.
    """
    cumulative = probabilities.cumsum(dim=-1)
    index = torch.searchsorted(cumulative, uniform[:, None], right=True)
    last = (probabilities > 0).sum(dim=-1, keepdim=True) - 1  # rounding may end the sum a little below 1
    index = index.minimum(last).clamp(min=0)  # 0 where all are NaN: a GPU must not index with -1
    return ids.gather(1, index)[:, 0]
