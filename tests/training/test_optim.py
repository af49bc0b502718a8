"""The learning rate of each step. The optimizers are tested with the engine, in test_engine.py."""

from gpt2cli.config import TrainConfig
from gpt2cli.training.optim import learning_rate, warmup_steps


def test_the_default_warm_up_is_a_tenth_of_a_short_run() -> None:
    assert [warmup_steps(steps, TrainConfig()) for steps in (1, 9, 10, 55, 100, 5000)] == [0, 0, 1, 5, 10, 10]
    assert warmup_steps(5, TrainConfig(warmup=20)) == 20
    rates = [learning_rate(step, 20, TrainConfig(learning_rate=1.0, schedule="constant")) for step in range(3)]
    assert rates == [0.5, 1.0, 1.0]
