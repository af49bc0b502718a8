"""The optimizers are those of torch, and the learning rate of each step."""

import pytest
import torch

from gpt2cli.config import LoRAConfig, TrainConfig
from gpt2cli.data.batches import make_rows
from gpt2cli.model.gpt import GPT
from gpt2cli.model.lora import add_lora
from gpt2cli.training import optim
from gpt2cli.training.loss import SequenceLoss
from gpt2cli.training.optim import Optimizer, learning_rate, steps_before_fall, warmup_steps
from tests.training.records import dataset, job


@pytest.mark.parametrize("clip", [0.01, 1e9])
def test_adamw_is_torchs_behind_its_clipping(clip: float) -> None:
    ours, theirs = job().model, job().model
    matrices = [p for p in theirs.parameters() if p.dim() == 2]
    vectors = [p for p in theirs.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.3}, {"params": vectors, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=1e-2, fused=True)
    optimizer = Optimizer(ours, TrainConfig(weight_decay=0.3, clip=clip))
    for _ in range(3):
        for model in (ours, theirs):
            SequenceLoss(model)(make_rows(dataset(6), range(6), 1000, torch.device("cpu"))[0]).backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip)
        reference.step()
        reference.zero_grad()
        found = float(optimizer.gradient_norm())
        assert found == pytest.approx(float(norm), rel=1e-5)
        optimizer.step(1e-2, found)
        assert all(p.grad is None for p in ours.parameters())
    for (name, mine), their in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, their, atol=1e-5, rtol=1e-4, msg=name)


def model_with(lora: bool) -> GPT:
    model = job().model
    torch.manual_seed(4)
    if lora:
        add_lora(model, LoRAConfig(rank=2))
    return model


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_muon_is_torchs_with_query_key_and_value_apart(monkeypatch: pytest.MonkeyPatch, lora: bool) -> None:
    """Both compute in fp32 here, not in bf16; what is not a block's matrix is AdamW's."""
    monkeypatch.setattr(optim, "fast_training_dtype", lambda device: None)
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor.clone())
    ours, theirs = model_with(lora), model_with(lora)
    before = {name: p for name, p in theirs.named_parameters() if p.requires_grad}
    apart = {
        name: [torch.nn.Parameter(t.detach().clone()) for t in p.chunk(3 if name.endswith("c_attn.weight") else 1)]
        for name, p in before.items()
    }
    matrices = [p for name, parts in apart.items() for p in parts if name.startswith("h.") and p.dim() == 2]
    others = [p for parts in apart.values() for p in parts if not any(p is matrix for matrix in matrices)]
    assert {len(p) > p.shape[1] for p in matrices} == {True, False}  # tall, and wide or square
    assert lora or any(len(p) == p.shape[1] for p in matrices)
    muon = {"momentum": 0.95, "nesterov": True, "adjust_lr_fn": "match_rms_adamw"}
    references = [
        torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.3, **muon),
        *(torch.optim.AdamW([p], lr=1e-2, weight_decay=0.3 * (p.dim() == 2)) for p in others),
    ]
    optimizer = Optimizer(ours, TrainConfig(weight_decay=0.3, clip=1e9, optimizer="muon"))
    for step in range(20):
        SequenceLoss(ours)(make_rows(dataset(24), [step, step + 1], 1000, torch.device("cpu"))[0]).backward()
        for name, parts in apart.items():
            for part, gradient in zip(parts, ours.get_parameter(name).grad.chunk(len(parts)), strict=True):
                part.grad = gradient.clone()
        for reference in references:
            reference.step()
        optimizer.step(1e-2, float(optimizer.gradient_norm()))
    for name, parts in apart.items():
        torch.testing.assert_close(ours.get_parameter(name), torch.cat(parts), rtol=0, atol=1e-5, msg=name)
        assert not torch.equal(ours.get_parameter(name), before[name]), name


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
