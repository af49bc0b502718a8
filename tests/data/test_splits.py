"""Splits: every record is in exactly one, the seed decides which, and no requested split is empty."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2cli.config import DataConfig
from gpt2cli.data.splits import permutation, sample, split, spread

FRACTIONS = st.floats(0, 0.49)


@given(st.integers(0, 300), FRACTIONS, FRACTIONS, st.integers(0, 9))
def test_disjoint_complete_and_never_without_training(n: int, val: float, test: float, seed: int) -> None:
    data = DataConfig(val, test, seed=seed)
    found = split(n, data)
    assert sorted(found["train"] + found["val"] + found["test"]) == list(range(n))
    assert bool(found["train"]) == (n > 0)
    assert bool(found["val"]) == (n > 1 and val > 0)
    assert bool(found["test"]) <= (test > 0)
    assert found == split(n, data)


def test_the_shares() -> None:
    found = split(1000, DataConfig(0.1, 0.05))
    assert {name: len(part) for name, part in found.items()} == {"train": 850, "val": 100, "test": 50}
    assert found != split(1000, DataConfig(0.1, 0.05, seed=1))
    # what validates does not depend on how much is tested
    assert found["val"] == split(1000, DataConfig(0.1, 0))["val"]


def test_the_order_is_the_same_on_every_machine() -> None:
    assert permutation(8, 0) == [3, 7, 5, 2, 4, 1, 6, 0]
    assert sample(8, 3, 0) == sorted(permutation(8, 0)[:3])
    assert sample(3, 8, 0) == [0, 1, 2]


@pytest.mark.parametrize(("k", "n"), [(3, 3), (3, 4), (3, 100), (7, 100), (1, 9), (5, 2), (3, 0)])
def test_spread_numbers_are_at_equal_distances(k: int, n: int) -> None:
    numbers = spread(k, n)
    assert len(numbers) == min(k, n)
    gaps = {later - earlier for earlier, later in pairwise(numbers)}
    assert not gaps or max(gaps) - min(gaps) <= 1
    assert numbers == sorted(set(numbers)) and all(0 <= number < n for number in numbers)
