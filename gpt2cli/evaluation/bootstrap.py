"""How far a figure can be trusted: bootstrap intervals, paired between models.

"Statistical Significance Tests for Machine Translation Evaluation", Koehn 2004: draw as many records as there are,
with replacement, many times over, and see how the figure varies. All models get the same draws, so that what makes a
record easy or hard for all of them cancels out in their difference.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LEVEL = 0.95
"""The share of the draws that an interval holds."""
_NUMBERS = 2**22
"""Drawn at once, at the most."""

Statistic = Callable[[list[float]], float]
"""From the sums over some records to their figure."""


@dataclass(frozen=True)
class Estimate:
    """A figure, and the interval that it lies in; None if there are too few records to tell."""

    value: float
    low: float | None = None
    high: float | None = None


def estimates(
    tables: Sequence[Tensor], statistic: Statistic, resamples: int, seed: int
) -> tuple[list[Estimate], list[Estimate]]:
    """Each model's figure, and the difference of each but the first to the first.

    A table is (n, k): k numbers for each of n records, the same records for every model.
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
    if math.isnan(low) or math.isnan(high):  # of figures that are infinite there is no difference
        return Estimate(value)
    return Estimate(value, low, high)


def resampled_sums(table: Tensor, resamples: int, seed: int) -> Tensor:
    """(resamples, k): the sums over n records drawn out of the n of `table` (n, k), with replacement."""
    n, stream, sums = len(table), torch.Generator().manual_seed(seed), []
    left = resamples
    while left:
        rows = min(left, max(1, _NUMBERS // (n * table.shape[1])))
        drawn = torch.randint(n, (rows, n), generator=stream)
        sums.append(table[drawn].sum(dim=1))
        left -= rows
    return torch.cat(sums)
