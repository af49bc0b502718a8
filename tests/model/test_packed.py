"""Packed models compute what the plain one does, as nearly as their bits allow, whatever else is in the batch."""

import copy

import pytest
import torch

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.config import GPTConfig, SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.generation.decode import generate
from gpt2cli.model import packed
from gpt2cli.model.device import pick_device
from gpt2cli.model.packed import FEW_ROWS, PRECISIONS, pack, prepare, round_weights
from tests import models

pytestmark = pytest.mark.skipif(not packed.has_packed_kernels(), reason="this PyTorch has no fbgemm")
NEAR = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 2e-3, "int8": 5e-2, "int4": 0.3}
ODD = GPTConfig(n_layer=2, n_head=3, n_embd=39, block_size=40, vocab_size=301)


def packed_model(model, precision):
    twin = copy.deepcopy(model)
    pack(twin, precision)
    return twin


@pytest.fixture(scope="module")
def tiny():
    return load_plain("tiny", device="cpu")


@pytest.mark.parametrize("rows", [1, 2, FEW_ROWS, FEW_ROWS + 1, 40])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("config", [models.SMALL, ODD], ids=["even", "odd"])
def test_logits_are_those_of_the_plain_model(config, precision, rows):
    model = models.small_model(config)
    idx = torch.randint(0, config.vocab_size, (1, min(rows, config.block_size)))
    with torch.no_grad():
        plain, ours = model(idx), packed_model(model, precision)(idx)
    assert (plain - ours).norm() < NEAR[precision] * plain.norm()


def test_an_untied_head_stays_apart():
    model = models.small_model(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=50, tied=False))
    idx = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        torch.testing.assert_close(packed_model(model, "fp32")(idx), model(idx), atol=1e-5, rtol=0)


def test_embedding_and_head_are_one_memory_in_fp32(tiny):
    model = packed_model(tiny, "fp32")
    assert model.wte.weight.data_ptr() == model.lm_head.weight.data_ptr()


@pytest.mark.parametrize("after_gelu", [False, True])
def test_8_bits_of_a_row_do_not_depend_on_the_other_rows(after_gelu):
    torch.manual_seed(0)
    layer = packed.Int8Linear(torch.randn(24, 32), torch.randn(24), after_gelu)
    x = torch.nn.functional.gelu(torch.randn(7, 32) * torch.logspace(-2, 2, 7)[:, None])
    alone = torch.cat([layer(row[None]) for row in x])
    assert torch.equal(layer(x), alone)


def test_a_row_of_zeros_gives_the_bias_and_no_nan():
    layer = packed.Int8Linear(torch.randn(24, 32), torch.ones(24), after_gelu=False)
    assert torch.equal(layer(torch.zeros(2, 32)), torch.ones(2, 24))


def test_what_is_not_finite_shows_in_the_result():
    layer = packed.Int8Linear(torch.randn(24, 32), torch.ones(24), after_gelu=False)
    for value in (float("nan"), float("inf")):
        assert not layer(torch.tensor([[value, *[1.0] * 31]])).isfinite().all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_without_packed_kernels_weights_have_the_same_values(precision, monkeypatch, tiny):
    monkeypatch.setattr(packed, "has_packed_kernels", lambda: False)
    model = prepare(copy.deepcopy(tiny), pick_device("cpu"), precision)
    assert model.precision == precision
    weight = tiny.h[1].mlp.c_fc.weight
    assert torch.equal(model.h[1].mlp.c_fc.weight.float(), round_weights(weight, precision))
    ids = [1, 2, 3]
    assert len(list(generate(model, [ids], SamplingConfig(max_new_tokens=3, temperature=0), [0]))) == 3


def test_auto_is_16_bits_or_the_8_that_are_stored(tiny):
    assert prepare(copy.deepcopy(tiny), pick_device("cpu"), "auto").precision == "int8"
    assert prepare(models.small_model(), pick_device("cpu"), "auto").precision == "fp16"


def test_an_unknown_precision_is_refused():
    from gpt2cli import load

    with pytest.raises(UsageError, match="precision must be auto, fp32"):
        load("tiny", precision="int3")
