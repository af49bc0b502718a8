"""Which rows of a long table a screen shows."""

import random
from itertools import pairwise

import pytest

from gpt2cli.cli.views.row_choice import telling_rows


def test_all_rows_of_a_short_table() -> None:
    assert telling_rows([], 6) == []
    assert telling_rows([(1.0,)] * 6, 6) == [0, 1, 2, 3, 4, 5]


def test_the_rows_around_a_jump_are_kept() -> None:
    rows = [(1.0, 0.0)] * 5 + [(0.0, 1.0)] * 7
    assert telling_rows(rows, 6) == [0, None, 4, 5, None, 11]
    peak = [(0.0,)] * 8 + [(1.0,)] + [(0.0,)] * 8
    assert 8 in telling_rows(peak, 5)


@pytest.mark.parametrize("most", [3, 6, 11])
@pytest.mark.parametrize("seed", range(20))
def test_the_first_and_the_last_row_and_a_sign_for_each_gap_of_two_or_more(most: int, seed: int) -> None:
    draw = random.Random(seed)
    rows = [(draw.random(), draw.random()) for _ in range(draw.randrange(12, 50))]
    found = telling_rows(rows, most)
    kept = [row for row in found if row is not None]
    assert len(found) <= most and kept[0] == 0 and kept[-1] == len(rows) - 1 and kept == sorted(set(kept))
    for before, row in pairwise(found):
        assert None in (before, row) or row == (before or 0) + 1
    gaps = [row - before for before, row in pairwise(kept) if row - before > 1]
    assert len(gaps) == found.count(None) and min(gaps) > 2
