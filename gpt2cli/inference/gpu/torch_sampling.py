"""The search for the largest logits, and the choice among them, on the device that computed the logits.

`candidates` sends few numbers to the host, where `generation.sampling` chooses. CUDA graphs choose on the device, with
`choose_on_device`, whose `cut` and `draw` do what those of `generation.sampling` do.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gpt2cli.config import VOCAB_SIZE, SamplingConfig

TABLE_ROWS = 32
"""Rows of the table in which `largest` searches. With 50,257 logits, this number is the fastest."""
TIES = 128
"""Tokens beyond top-k that `choose_on_device` compares with the k-th: dozens of 16-bit logits may be equal to it."""


def candidates(
    logits: Tensor, count: int, seen: Sequence[NDArray[np.int64]], penalty: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """As `inference.candidates.candidates`, for logits (B, V) on any device."""
    logits = logits[:, :VOCAB_SIZE].float()
    V = logits.shape[-1]
    if penalty != 1:
        logits = penalise_repetition(logits, seen, penalty)
    if count >= V:
        values, ids = (found.cpu() for found in largest(logits, V))
        return values.numpy(), ids.numpy()
    values, ids = (found.cpu() for found in largest(logits, count + 1))  # sorted, and few
    if bool((values[:, count] == values[:, count - 1]).any()):
        most = (logits >= values[:, count - 1 : count].to(logits.device)).sum(dim=-1).max()
        values, ids = (found.cpu() for found in largest(logits, max(count, int(most))))
        values = values.masked_fill(values < values[:, count - 1 : count], -math.inf)
    else:
        values, ids = values[:, :count], ids[:, :count]
    if bool((values[:, 1:] == values[:, :-1]).any()):
        values, ids = by_id(values, ids)
    return values.numpy(), ids.numpy()


def penalise_repetition(logits: Tensor, seen: Sequence[NDArray[np.int64]], penalty: float) -> Tensor:
    """As `inference.candidates.penalise_repetition`."""
    logits = logits.clone()
    for row, tokens in zip(logits, seen, strict=True):
        places = torch.from_numpy(tokens).to(logits.device)
        values = row[places]
        row[places] = torch.where(values > 0, values / penalty, values * penalty)
    return logits


def choose_on_device(logits: Tensor, uniform: Tensor, config: SamplingConfig) -> tuple[Tensor, Tensor]:
    """The next tokens (B,) for logits (B, V), and each row's largest logit (B,), to be checked by `check_finite`.

    `uniform` (B,) are random numbers in [0, 1). Nothing waits for the device, and no shape depends on values, so that a
    CUDA graph can contain this.
    """
    if config.temperature == 0:
        best, ids = logits.max(dim=-1)
        return ids, best
    k, V = config.top_k, logits.shape[-1]
    values, ids = by_id(*largest(logits, min(k + TIES, V))) if k else largest(logits, V)
    return draw(cut(values, config), ids, uniform), values[:, 0]


def cut(values: Tensor, config: SamplingConfig) -> Tensor:
    """As `generation.sampling.cut`, for values that may reach beyond those that equal the k-th."""
    k = config.top_k
    if 0 < k < values.shape[-1]:
        values = values.masked_fill(values < values[:, k - 1 : k], -math.inf)
    values = values.double()
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
    """As `generation.sampling.draw`, for `probabilities` and `ids` (B, K) and `uniform` (B,). Returns (B,)."""
    cumulative = probabilities.cumsum(dim=-1)
    index = torch.searchsorted(cumulative, uniform[:, None], right=True)
    last = (probabilities > 0).sum(dim=-1, keepdim=True) - 1  # rounding may end the sum a little below 1
    index = index.minimum(last).clamp(min=0)  # 0 where all are NaN: a GPU must not index with -1
    return ids.gather(1, index)[:, 0]
