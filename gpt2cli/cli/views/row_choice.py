"""Which rows of a long table a screen shows."""

from collections.abc import Sequence
from itertools import pairwise


def telling_rows(rows: Sequence[Sequence[float]], most: int) -> list[int | None]:
    """The indices of the first, the last, and those rows of numbers between which the numbers change least evenly.

    None stands in place of two or more rows that are left out. At most `most` entries, at least 3. Greedy: the row is
    added that differs most from a straight line between its neighbours (Ramer 1972; Douglas and Peucker 1973).
    """
    if len(rows) <= most:
        return list(range(len(rows)))
    kept = [0, len(rows) - 1]
    while True:
        added = max((row for row in range(len(rows)) if row not in kept), key=lambda row: _error(rows, kept, row))
        more = sorted([*kept, added])
        if len(_with_gaps(more)) > most:
            return _with_gaps(kept)
        kept = more


def _error(rows: Sequence[Sequence[float]], kept: Sequence[int], row: int) -> float:
    """The largest difference between a row's numbers and the straight line between the kept rows around it."""
    low, high = max(each for each in kept if each < row), min(each for each in kept if each > row)
    share = (row - low) / (high - low)
    lines = zip(rows[low], rows[row], rows[high], strict=True)
    return max(abs(number - (1 - share) * before - share * after) for before, number, after in lines)


def _with_gaps(kept: Sequence[int]) -> list[int | None]:
    """The kept rows and None between those that are not neighbours. A single row between two is kept in its place."""
    found: list[int | None] = [kept[0]]
    for before, row in pairwise(kept):
        if row - before == 2:
            found.append(before + 1)
        elif row - before > 2:
            found.append(None)
        found.append(row)
    return found
