"""Packed weights are torch's conversions of the weights, laid out as documented."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest
import torch

from gpt2cli.errors import CheckpointError
from gpt2cli.inference.cpu import weight_packing
from gpt2cli.inference.cpu.huge_pages import ALIGNMENT
from gpt2cli.inference.cpu.packed_layout import LARGEST_WEIGHT, block_precision, packed_matrix, packed_table
from gpt2cli.inference.cpu.weight_packing import automatic_precision, pack_matrix, pack_model
from tests.weights import CONFIG, Weights

PRECISIONS = ["fp32", "bf16", "fp16", "int8", "int4"]
TORCH = {"fp16": torch.float16, "bf16": torch.bfloat16}


def exact_step(largest):
    step = largest.float() / LARGEST_WEIGHT
    return torch.where(step < 1e-30, 1.0, step).numpy()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("scale", [1.0, 1e-5, 1e-9, 1e3])
def test_16_bits_are_torchs(precision, scale):
    torch.manual_seed(0)
    weight = torch.randn(50, 70) * scale
    weight[3] = 0
    rounded, matrix = weight.to(TORCH[precision]), pack_matrix(weight.numpy(), None, precision)
    assert np.array_equal(matrix.weights[:50, :70].view(np.int16), rounded.view(torch.int16).numpy())
    assert np.array_equal(matrix.step[:50], exact_step(rounded.abs().amax(1)))
    assert not matrix.weights[50:].any() and not matrix.weights[:, 70:].any() and (matrix.step[50:] == 1).all()


def test_every_number_of_fp16_and_what_lies_between_is_rounded_as_by_torch():
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = halves[:-1] + np.diff(halves) / 2
    near = [np.nextafter(middle, np.float32(end)) for end in (0, np.inf)]
    least = np.array([0, 1e-45, 1e-40, 2**-25, 65519, 65519.996], np.float32)
    numbers = np.concatenate([halves, middle, *near, least])
    both = np.resize(np.concatenate([numbers, -numbers]), (len(numbers) // 128 * 2 + 3, 128))
    packed = pack_matrix(both, None, "fp16").weights[: len(both), :128]
    assert np.array_equal(packed, torch.from_numpy(both).half().view(torch.int16).numpy().view(np.uint16))


def test_8_bits_are_torchs():
    torch.manual_seed(0)
    weight, bias = torch.randn(50, 70) * 0.02, torch.randn(50)
    matrix = pack_matrix(weight.numpy(), bias.numpy(), "int8")
    scale = (weight.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    assert np.array_equal(matrix.weights[:50, :70], (weight / scale[:, None]).round().to(torch.int8).numpy())
    assert np.array_equal(matrix.scale[:50], scale.numpy())
    assert (matrix.scale[50:] == 1).all() and (matrix.step == 1).all()
    assert np.array_equal(matrix.bias[:50], bias.numpy()) and not matrix.bias[50:].any()


def test_4_bits_lie_as_the_drawing_says():
    weight = np.random.default_rng(0).standard_normal((33, 96), np.float32)
    matrix = pack_matrix(weight, None, "int4")
    numbers = np.concatenate([matrix.weights.reshape(48, -1, 16) & 15, matrix.weights.reshape(48, -1, 16) >> 4], axis=2)
    scales = matrix.groups.view(np.float16).astype(np.float32)
    back = ((numbers.astype(np.float32) - 8) * scales[:, :, None]).reshape(48, -1)
    assert np.abs(back[:33, :96] - weight).max() < np.abs(weight).max() / 8
    assert not back[33:].any() and not back[:, 96:].any()
    assert np.array_equal(matrix.step[:33], exact_step(torch.from_numpy(scales[:33] * 8).abs().amax(1)))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stored", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_the_order_and_the_type_of_the_source_make_no_difference(precision, stored, monkeypatch):
    monkeypatch.setattr(weight_packing, "SLICE", 1000)
    rows = np.random.default_rng(0).standard_normal((100, 320), np.float32).astype(stored)
    expected = pack_matrix(rows.astype(np.float32), None, precision)
    for source in (rows, np.asfortranarray(rows)):
        for found, wanted in zip(pack_matrix(source, None, precision), expected, strict=True):
            assert np.array_equal(found, wanted)


@pytest.mark.parametrize("precision", ["fp16", "int4"])
def test_weights_that_are_too_large_are_refused_and_say_the_largest(precision):
    weight = np.ones((40, 64), np.float32)
    weight[39, 5] = -1e6
    with pytest.raises(CheckpointError, match=f"a weight of 1e\\+06 is too large for {precision}"):
        pack_matrix(weight, None, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("change", [{}, {"tied": False}, {"n_embd": 96}, {"n_embd": 64, "n_head": 2}])
def test_the_arrays_of_a_model_are_those_of_the_table(precision, change):
    config = dataclasses.replace(CONFIG, **change)
    arrays, table = dict(pack_model(config, Weights(config), precision)), packed_table(config, precision)
    assert list(arrays) == list(table)
    for name, array in arrays.items():
        assert (array.shape, array.dtype) == table[name]
        assert array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0
    c_fc = Weights(config)["h.1.mlp.c_fc.weight"], Weights(config)["h.1.mlp.c_fc.bias"]
    expected = pack_matrix(*c_fc, block_precision(precision, config.n_embd))
    for found, wanted in zip(packed_matrix(arrays, "h.1.mlp.c_fc"), expected, strict=True):
        assert np.array_equal(found, wanted)
    assert np.array_equal(arrays["wpe"], Weights(config)["wpe.weight"])
    assert np.array_equal(arrays["ln_f"], np.stack([Weights(config)["ln_f.weight"], Weights(config)["ln_f.bias"]]))


def test_each_tensor_is_released_before_the_next_matrix_is_packed():
    weights = Weights(CONFIG)
    for name, _ in pack_model(CONFIG, weights, "int8"):
        if name.endswith(".weights"):
            assert f"{name.removesuffix('s')}" in weights.released
    assert sorted(weights.released) == sorted(weights)


def test_what_auto_means():
    assert [automatic_precision(stored) for stored in ("fp32", "int8", "int4")] == ["fp16", "int8", "int8"]
