"""Rounding keeps within its bounds, and what was rounded stays as it is."""

import ml_dtypes
import numpy as np
import pytest

from gpt2cli.model import quantization
from gpt2cli.model.quantization import dequantize_groups, group_size, quantize_groups, quantize_rows


def matrix(out=20, width=96, scale=1.0):
    return np.random.default_rng(0).standard_normal((out, width), np.float32) * np.float32(scale)


@pytest.mark.parametrize("width", [1, 31, 96])
def test_rows_are_within_half_a_step_and_stay(width):
    weight = matrix(width=width)
    numbers, scale = quantize_rows(weight)
    assert (numbers.dtype, scale.dtype) == (np.int8, np.float32)
    back = numbers * scale[:, None]
    assert (np.abs(back - weight) <= scale[:, None] * 0.5001).all()
    again, _ = quantize_rows(back)
    assert (again == numbers).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("width", [7, 48, 96])
def test_groups_come_back_near_and_stay(width, scale):
    weight = matrix(width=width, scale=scale)
    numbers, scales = quantize_groups(weight)
    assert (numbers.dtype, numbers.shape) == (np.int8, weight.shape)
    assert (scales.dtype, scales.shape) == (np.float16, (20, width // group_size(width)))
    assert numbers.min() >= -8
    assert numbers.max() <= 7
    back = dequantize_groups(numbers, scales)
    assert back.shape == weight.shape
    assert np.linalg.norm(back - weight) < 0.1 * np.linalg.norm(weight)
    assert (dequantize_groups(*quantize_groups(back)) == back).all()


def test_no_group_is_further_off_than_with_its_extreme_at_minus_8():
    weight = matrix()
    groups = weight.reshape(20, -1, quantization.GROUP)
    step = np.take_along_axis(groups, np.abs(groups).argmax(axis=2)[:, :, None], axis=2) / -8
    plain = np.rint(groups / step).clip(-8, 7) * step
    found = dequantize_groups(*quantize_groups(weight)).reshape(groups.shape)
    bound = np.square(plain - groups).sum(axis=2) * 1.001 + 1e-6
    assert (np.square(found - groups).sum(axis=2) <= bound).all()


@pytest.mark.parametrize("value", [0.0, 1e-44, 1e-38, 1e-9, 1e30])
def test_extremes_stay_finite_and_zero_stays_zero(value):
    weight = np.full((3, 32), value, np.float32)
    numbers, scale = quantize_rows(weight)
    rows, groups = numbers * scale[:, None], dequantize_groups(*quantize_groups(weight))
    for back in (rows, groups):
        assert np.isfinite(back).all()
        assert (np.abs(back) <= abs(value) * 1.01 + 1e-7).all()


def test_neither_the_layout_nor_the_chunk_matters(monkeypatch):
    weight = matrix()
    wholes = quantize_rows(weight), quantize_groups(weight)
    monkeypatch.setattr(quantization, "CHUNK", 320)
    for other in (weight, np.asfortranarray(weight)):
        for whole, quantize in zip(wholes, (quantize_rows, quantize_groups), strict=True):
            for a, b in zip(whole, quantize(other), strict=True):
                assert (a == b).all()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_weights_of_16_bits_give_what_they_give_in_fp32(dtype):
    weight = matrix().astype(dtype)
    for quantize in (quantize_rows, quantize_groups):
        for a, b in zip(quantize(weight), quantize(weight.astype(np.float32)), strict=True):
            assert (a == b).all()
