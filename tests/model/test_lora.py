"""Low-rank adapters train beside a frozen model, compute what PEFT's do, and leave a plain GPT behind."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gpt2cli.config import ADAPTED, GPTConfig, LoRAConfig
from gpt2cli.data.batches import Batch
from gpt2cli.model.lora import LoRALinear, add_lora, lora_state, merge_lora, merged_state
from gpt2cli.model.packed_row import PackedRow
from gpt2cli.training.loss import SequenceLoss
from tests import models

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=37, vocab_size=500, dropout=0.0)
LORA = LoRAConfig(rank=4, alpha=6.0)
IDX = torch.arange(20).reshape(2, 10) * 31 % 500


@pytest.fixture
def model():
    return models.small_model(CONFIG)


@pytest.fixture
def adapted(model):
    """A model with adapters that make a difference."""
    add_lora(model, LORA)
    with torch.no_grad():
        for tensor in lora_state(model).values():
            tensor.normal_(std=0.1)
    return model


def loss_of(model):
    return F.cross_entropy(model(IDX[:, :-1]).flatten(0, 1), IDX[:, 1:].flatten())


def train(model, steps=3):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        loss = loss_of(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def test_before_training_nothing_changes(model):
    with torch.no_grad():
        before = model(IDX)
        add_lora(model, LORA)
        assert torch.equal(model(IDX), before)


def test_the_names_and_tensors_of_the_base_stay(model):
    base = dict(model.named_parameters())
    add_lora(model, LORA)
    after = dict(model.named_parameters())
    assert all(after[name] is tensor for name, tensor in base.items())
    assert after.keys() - base.keys() == lora_state(model).keys()
    assert after["h.1.mlp.c_fc.lora_A"].shape == (4, 48)
    assert after["h.1.mlp.c_fc.lora_B"].shape == (192, 4)


def test_every_linear_layer_of_the_blocks_is_adapted(model):
    add_lora(model, LORA)
    for block in model.h:
        assert all(isinstance(block.get_submodule(name), LoRALinear) for name in ADAPTED)
    assert not any(isinstance(module, nn.Linear) for module in model.h.modules())
    with pytest.raises(ValueError, match="merge its adapter first"):
        add_lora(model, LORA)


def test_a_is_drawn_as_in_peft_from_the_global_stream(model):
    torch.manual_seed(5)
    add_lora(model, LORA)
    torch.manual_seed(5)
    expected = nn.Linear(48, 4, bias=False).weight  # torch's own start is kaiming_uniform_ with a = sqrt(5), too
    assert torch.equal(model.h[0].attn.c_attn.lora_A, expected)


def test_only_adapters_learn(model):
    add_lora(model, LORA)
    before = copy.deepcopy(model.state_dict())
    first = loss_of(model).item()
    assert train(model) < first
    adapters = lora_state(model).keys()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in adapters)
        assert torch.equal(parameter, before[name]) == (name not in adapters)


def test_the_update_is_scaled_by_alpha_over_rank():
    linear = nn.Linear(5, 7)
    layer = LoRALinear(linear, LoRAConfig(rank=2, alpha=3.0))
    with torch.no_grad():
        layer.lora_B.normal_()
        x = torch.randn(4, 5)
        expected = linear(x) + 1.5 * x @ layer.lora_A.T @ layer.lora_B.T
        torch.testing.assert_close(layer(x), expected)
        torch.testing.assert_close(layer.update(), 1.5 * layer.lora_B @ layer.lora_A)


def test_dropout_is_on_the_adapters_input_and_only_while_training():
    linear = nn.Linear(5, 7)
    layer = LoRALinear(linear, LoRAConfig(rank=2), dropout=0.9)
    x = torch.randn(100, 5)
    with torch.no_grad():
        assert torch.equal(layer(x), linear(x))  # B is 0
        layer.lora_B.normal_()
        assert not torch.equal(layer(x), layer(x))
        assert torch.equal(layer.eval()(x), layer(x))


def test_merged_computes_the_same_and_is_a_plain_gpt(adapted):
    with torch.no_grad():
        before = adapted(IDX)
        merge_lora(adapted)
        torch.testing.assert_close(adapted(IDX), before, atol=1e-5, rtol=0)
    plain = models.small_model(CONFIG)
    assert [type(module) for module in adapted.modules()] == [type(module) for module in plain.modules()]
    assert adapted.state_dict().keys() == plain.state_dict().keys()
    assert all(parameter.requires_grad for parameter in adapted.parameters())
    assert not any(module.training for module in adapted.modules())
    assert lora_state(adapted) == {}


def test_merged_state_is_that_of_the_merged_model_and_changes_nothing(adapted):
    before = copy.deepcopy(adapted.state_dict())
    state = merged_state(adapted)
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapted.state_dict().items())
    merge_lora(adapted)
    assert state.keys() == adapted.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in adapted.state_dict().items())


def test_under_autocast_it_learns_and_adapters_stay_fp32(model):
    add_lora(model, LORA)
    first = loss_of(model).item()
    with torch.autocast("cpu", torch.bfloat16):
        assert model.h[0].mlp.c_fc(torch.randn(1, 2, 48)).dtype == torch.bfloat16
        assert train(model) < first
    assert {tensor.dtype for tensor in lora_state(model).values()} == {torch.float32}


def test_a_base_in_half_precision_keeps_its_type(model):
    model.bfloat16()
    add_lora(model, LORA)
    first = loss_of(model).item()
    assert train(model) < first
    assert model.h[0].attn.c_attn.lora_A.grad.dtype == torch.float32
    merge_lora(model)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("places", [[0, 2, 3], list(range(IDX.shape[1] - 1))], ids=["some", "all"])
def test_gradients_are_the_same_with_recomputed_blocks(adapted, places):
    adapted.train()
    row = Batch(
        idx=IDX[:1, :-1],
        sight=PackedRow([IDX.shape[1] - 1], [None], torch.device("cpu")),
        places=torch.tensor(places),
        targets=IDX[0, 1:][places],
        records=[0],
    )
    gradients = []
    for recompute in (False, True):
        adapted.zero_grad()
        SequenceLoss(adapted, recompute=recompute)(row).backward()
        gradients.append([parameter.grad for parameter in adapted.parameters() if parameter.requires_grad])
    assert len(gradients[0]) == 16
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_logits_and_gradients_equal_pefts(adapted):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    base = transformers.GPT2LMHeadModel(transformers.GPT2Config(**models.hub_config(CONFIG))).eval()
    base.load_state_dict(models.hub_state(models.small_model(CONFIG), "transformer.", buffers=False), strict=False)
    theirs = peft.get_peft_model(
        base,
        peft.LoraConfig(r=4, lora_alpha=6, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True),
    ).eval()
    parameters = dict(theirs.named_parameters())
    pairs = {name: parameters[f"base_model.model.transformer.{name}.default.weight"] for name in lora_state(adapted)}
    with torch.no_grad():
        for name, tensor in lora_state(adapted).items():
            pairs[name].copy_(tensor)
    torch.testing.assert_close(adapted(IDX), theirs(IDX).logits, atol=1e-5, rtol=0)
    loss_of(adapted).backward()
    F.cross_entropy(theirs(IDX[:, :-1]).logits.flatten(0, 1), IDX[:, 1:].flatten()).backward()
    for name, theirs_parameter in pairs.items():
        torch.testing.assert_close(adapted.get_parameter(name).grad, theirs_parameter.grad, atol=1e-5, rtol=1e-4)
