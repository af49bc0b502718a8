"""The cost of the order of records. The order itself is tested in tests/training."""

import pytest
import torch

from gpt2cli.data.batches import records_of_step, steps_per_epoch


def test_the_order_of_an_epoch_is_made_once_for_all_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    randperm = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda *args, **named: made.append(args) or randperm(*args, **named))
    kinds = torch.arange(60) % 3
    steps = steps_per_epoch(60, 7)
    first = [records_of_step(kinds, 7, step, seed=5) for step in range(steps)]
    once = len(made)
    assert once <= 2 and sorted(record for step in first for record in step) == list(range(60))
    second = [records_of_step(kinds, 7, step, seed=5) for step in range(steps, 2 * steps)]
    assert len(made) == 2 * once and second != first
