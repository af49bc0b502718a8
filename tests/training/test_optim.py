"""The learning rate of each step. The optimizers are tested with the engine, in test_engine.py."""

import pytest

from gpt2cli.config import TrainConfig
from gpt2cli.training.optim import learning_rate, steps_before_fall, warmup_steps


def test_the_default_warm_up_is_a_tenth_of_a_short_run() -> None:
    assert [warmup_steps(steps, TrainConfig()) for steps in (1, 9, 10, 55, 100, 5000)] == [0, 0, 1, 5, 10, 10]
    assert warmup_steps(5, TrainConfig(warmup=20)) == 20
    rates = [learning_rate(step, 20, TrainConfig(learning_rate=1.0, schedule="constant")) for step in range(3)]
    assert rates == [0.5, 1.0, 1.0]


def rates(steps: int, **changes) -> list[float]:
    config = TrainConfig(**{"learning_rate": 1.0, "schedule": "wsd", "warmup": 4} | changes)
    return [learning_rate(step, steps, config) for step in range(steps)]


def test_the_rate_stays_level_and_falls_in_a_straight_line_over_the_last_steps() -> None:
    found = rates(20)
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert set(found[4:13]) == {1.0} and steps_before_fall(20, TrainConfig(schedule="wsd", warmup=4)) == 12
    assert found[12:] == [1 - i / 8 for i in range(8)]
    assert rates(20, cooldown=0.25)[15:] == [1 - i / 5 for i in range(5)]


def test_a_fall_over_the_whole_run_is_the_linear_schedule() -> None:
    for steps, warmup in ((20, 4), (20, 0), (7, 6), (7, 30), (1, 0), (1, 5)):
        assert rates(steps, cooldown=1.0, warmup=warmup) == rates(steps, schedule="linear", warmup=warmup)


@pytest.mark.parametrize("cooldown", [0.01, 0.25, 0.4, 0.5, 0.99])
def test_the_rate_before_the_fall_does_not_depend_on_the_length(cooldown: float) -> None:
    config, constant = TrainConfig(schedule="wsd", warmup=4, cooldown=cooldown), rates(100, schedule="constant")
    levels = [steps_before_fall(steps, config) for steps in range(1, 100)]
    assert levels == sorted(levels)  # so a checkpoint from before the fall fits every longer run
    for steps, level in enumerate(levels, start=1):
        if level > 4:
            assert rates(steps, cooldown=cooldown)[:level] == constant[:level]


def test_a_warm_up_that_is_longer_than_the_level_part_leaves_less_to_the_fall() -> None:
    found = rates(10, warmup=8)
    assert found[:8] == [i / 8 for i in range(1, 9)] and found[8:] == [1.0, 0.5]
    assert rates(1, warmup=0) == [1.0] and rates(3, warmup=9) == [0.5, 1.0, 1.0]
