"""Which validation records a run uses. tests/training/test_loss.py checks the loss itself."""

import itertools

import pytest

from gpt2cli.training import validation
from gpt2cli.training.validation import FEWEST, FORWARD, SHARE, subset
from tests.training.records import dataset

VAL = dataset(200, seed=1)


def sequences(data) -> list[list[int]]:
    return [data[i][0].tolist() for i in range(len(data))]


def test_a_run_that_is_long_enough_uses_all():
    assert subset(VAL, 10 * VAL.n_tokens * int(FORWARD / SHARE)) is VAL
    assert subset(VAL, 100 * VAL.n_tokens) is VAL


@pytest.mark.parametrize("times", [0.1, 1, 5])
def test_a_short_run_uses_some_that_are_spread_evenly(times):
    used = subset(VAL, int(times * VAL.n_tokens))
    assert len(used) == max(FEWEST, int(len(VAL) * times * SHARE / FORWARD))
    places = [sequences(VAL).index(ids) for ids in sequences(used)]
    assert places == sorted(set(places))
    gaps = {b - a for a, b in itertools.pairwise(places)}
    assert max(gaps) - min(gaps) <= 1
    assert sequences(subset(VAL, int(times * VAL.n_tokens))) == sequences(used)


def test_a_run_that_is_extended_keeps_its_records():
    short, long = VAL.n_tokens, 50 * VAL.n_tokens
    used = subset(VAL, short)
    assert len(subset(VAL, long)) > len(used)
    assert sequences(subset(VAL, long, len(used))) == sequences(used)


def test_the_shortest_run_uses_a_few_or_what_there_is():
    assert len(subset(VAL, 0)) == FEWEST
    few = dataset(3, seed=1)
    assert subset(few, 0) is few
    assert validation.FEWEST < 10
