"""Training in a copy of the model: in fp32 it changes nothing, in bf16 as much as rounding does."""

import copy

import pytest
import torch

from gpt2cli.config import LoRAConfig
from gpt2cli.model.lora import add_lora
from gpt2cli.training import engine
from gpt2cli.training.events import Evaluated, Step
from gpt2cli.training.half_copy import HalfCopy
from gpt2cli.training.job import round_frozen
from gpt2cli.training.run_checkpoints import read_state
from tests.training.records import dataset, events_of, job, weights_of


def run(dtype, lora=False, **changes):
    run = job(dropout=0.2, batch_size=3, grad_accum=2, max_tokens=40, epochs=3, **changes)
    torch.manual_seed(4)
    if lora:
        add_lora(run.model, LoRAConfig(rank=2))
    run.autocast, run.half_copy = dtype, dtype is not None
    return run, [step.loss for step in events_of(run, Step)]


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_in_fp32_the_copy_learns_what_the_model_would(lora, optimizer):
    plain, expected = run(None, lora, optimizer=optimizer)
    copied, found = run(torch.float32, lora, optimizer=optimizer)
    assert found == pytest.approx(expected, rel=1e-5)
    for name, weight in weights_of(plain).items():
        torch.testing.assert_close(weights_of(copied)[name], weight, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("lora", [False, True])
def test_in_bf16_the_weights_stay_in_fp32_and_learn_as_well(lora):
    _, expected = run(None, lora)
    copied, found = run(torch.bfloat16, lora)
    assert all(weight.dtype is torch.float32 for weight in weights_of(copied).values())
    assert found == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_new_model_is_evaluated_without_dropout(dtype):
    run = job(dropout=0.5, max_steps=2, eval_every=1, val=dataset(5, seed=1))
    run.autocast, run.half_copy = dtype, dtype is not None
    run.model.train()  # as a new model is
    for event in engine.train(run):
        if isinstance(event, Evaluated):
            model = copy.deepcopy(run.model).eval()
            autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype is not None)
            loss = engine.mean_loss(model, run.val, run.max_tokens, autocast, run.ranks)
            assert event.val_loss == pytest.approx(loss, rel=1e-5)


def test_embeddings_and_frozen_matrices_are_not_copied():
    model = job().model
    add_lora(model, LoRAConfig(rank=2))
    round_frozen(model, torch.bfloat16)
    half = HalfCopy(model, torch.bfloat16)
    layer, twin = model.h[0].mlp.c_fc, half.model.h[0].mlp.c_fc
    assert half.model.wte.weight is model.wte.weight and half.model.wpe.weight is model.wpe.weight
    assert twin.weight.data_ptr() == layer.weight.data_ptr() and twin.lora_A is not layer.lora_A
    assert half.model.ln_f.weight.dtype is torch.bfloat16


def test_a_resumed_run_begins_with_a_copy_of_what_it_read(tmp_path):
    unbroken, losses = run(torch.bfloat16, save_every=2, checkpoints=tmp_path)
    found = read_state(sorted(tmp_path.glob("step-*"))[0])
    expected = losses[found.counters.step :]
    resumed, rest = run(torch.bfloat16, resume=found)
    assert rest == expected != []
    for name, weight in weights_of(unbroken).items():
        assert torch.equal(weight, weights_of(resumed)[name]), name
