"""The lines of a run's plan, and its correction."""

from dataclasses import replace

import pytest

from gpt2cli.cli.views.plan import PaceNote, lines_of, rough
from tests.training.records import started, step_event
from tests.training.test_estimate import PLAN


def test_the_plan_in_four_lines():
    assert list(lines_of(PLAN)) == [
        "27 records, 2,754 tokens an epoch: 80 steps in 2 epochs",
        "about 13 min of training on cpu",
        "memory: 2.0 GB (8.0 GB free)",
        "disk: 0.1 GB for the result, and up to 1.0 GB during the run (10 GB free)",
    ]
    text = replace(PLAN, noun="text block", examples=1, step=79)
    assert next(lines_of(text)) == "1 text block, 2,754 tokens an epoch: 1 step of 80 is left"
    unknown = replace(PLAN, free_memory=None, one_disk=False)
    assert list(lines_of(unknown))[2] == "memory: 2.0 GB"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (12.4, "12 s"), (99, "99 s"), (119, "2 min"), (5000, "83 min"), (7200, "2 h"), (9e5, "10 days")],
)
def test_an_estimate_is_not_more_exact_than_it_can_be(seconds, words):
    assert rough(seconds) == words


def steps_of(seconds: float, plan=PLAN) -> list[str]:
    notes: list[str] = []
    view = PaceNote(plan, notes.append)
    view.handle(started(0))
    for number in range(1, 20):
        view.handle(replace(step_event(number), tokens=100, tok_s=100 / (99.0 if number == 1 else seconds)))
    return notes


def test_a_wrong_estimate_is_corrected_once():
    assert steps_of(15.0) == ["a step takes 15 s, not 10 s as estimated: about 18 min of training are left"]
    assert "not 10 s" in steps_of(7.0)[0]
    assert steps_of(11.0) == steps_of(9.0) == []


def test_the_end_of_a_run_needs_no_correction():
    assert steps_of(0.5, replace(PLAN, seconds=8.0)) == []
