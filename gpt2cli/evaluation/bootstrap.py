"""Bootstrap confidence intervals, paired between models.

Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation": draw as many records as the data has,
with replacement, many times, and compute the figure for each draw. All models get the same draws, so whatever makes a
record easy or hard for all of them cancels out in their difference.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LEVEL = 0.95
"""The fraction of the draws inside an interval."""
_MAX_VALUES = 2**22
"""The largest number of table values that are drawn at once."""

Statistic = Callable[[list[float]], float]
"""Computes a figure from the column sums over some records."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval. The interval is None if there are too few records."""

    value: float
    low: float | None = None
    high: float | None = None


def estimates(
    tables: Sequence[Tensor], statistic: Statistic, resamples: int, seed: int
) -> tuple[list[Estimate], list[Estimate]]:
    """Each model's figure, and the differences of all but the first model from the first.

    tables     for each model (n, k): k numbers for each of n records, the same records for every model
    resamples  the number of draws
    """
    values = [statistic(table.sum(dim=0).tolist()) for table in tables]
    if len(tables[0]) < 2:
        return [Estimate(value) for value in values], [Estimate(value - values[0]) for value in values[1:]]
    drawn = [
        torch.tensor([statistic(sums) for sums in resampled_sums(table, resamples, seed).tolist()], dtype=torch.float64)
        for table in tables
    ]
    own = [_estimate(value, draws) for value, draws in zip(values, drawn, strict=True)]
    pairs = zip(values[1:], drawn[1:], strict=True)
    return own, [_estimate(value - values[0], draws - drawn[0]) for value, draws in pairs]


def _estimate(value: float, draws: Tensor) -> Estimate:
    tail = (1 - LEVEL) / 2
    low, high = torch.quantile(draws, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    if math.isnan(low) or math.isnan(high):  # infinite figures have no difference
        return Estimate(value)
    return Estimate(value, low, high)


def resampled_sums(table: Tensor, resamples: int, seed: int) -> Tensor:
    """(resamples, k): the column sums over n records, drawn with replacement from `table` (n, k)."""
    n, stream, sums = len(table), torch.Generator().manual_seed(seed), []
    left = resamples
    while left:
        rows = min(left, max(1, _MAX_VALUES // (n * table.shape[1])))
        drawn = torch.randint(n, (rows, n), generator=stream)
        sums.append(table[drawn].sum(dim=1))
        left -= rows
    return torch.cat(sums)
