"""Rounding keeps within its bounds, and what was rounded stays as it is."""

import pytest
import torch

from gpt2cli.model import quantization
from gpt2cli.model.quantization import dequantize_groups, group_size, quantize_groups, quantize_rows


def matrix(out=20, width=96, scale=1.0):
    return torch.randn(out, width, generator=torch.Generator().manual_seed(0)) * scale


@pytest.mark.parametrize("width", [1, 31, 96])
def test_rows_are_within_half_a_step_and_stay(width):
    weight = matrix(width=width)
    numbers, scale = quantize_rows(weight)
    back = numbers * scale[:, None]
    assert ((back - weight).abs() <= scale[:, None] * 0.5001).all()
    again, _ = quantize_rows(back)
    assert torch.equal(again, numbers)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("width", [7, 48, 96])
def test_groups_come_back_near_and_stay(width, scale):
    weight = matrix(width=width, scale=scale)
    numbers, scales = quantize_groups(weight)
    assert (numbers.dtype, numbers.shape) == (torch.int8, weight.shape)
    assert (scales.dtype, scales.shape) == (torch.float16, (20, width // group_size(width)))
    assert int(numbers.min()) >= -8
    assert int(numbers.max()) <= 7
    back = dequantize_groups(numbers, scales)
    assert back.shape == weight.shape
    assert (back - weight).norm() < 0.1 * weight.norm()
    assert torch.equal(dequantize_groups(*quantize_groups(back)), back)


def test_no_group_is_further_off_than_with_its_extreme_at_minus_8():
    weight = matrix()
    groups = weight.view(20, -1, quantization.GROUP)
    step = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True)) / -8
    plain = (groups / step).round().clamp(-8, 7) * step
    found = dequantize_groups(*quantize_groups(weight)).view_as(groups)
    bound = (plain - groups).square().sum(dim=2) * 1.001 + 1e-6
    assert ((found - groups).square().sum(dim=2) <= bound).all()


@pytest.mark.parametrize("value", [0.0, 1e-44, 1e-38, 1e-9, 1e30])
def test_extremes_stay_finite_and_zero_stays_zero(value):
    weight = torch.full((3, 32), value)
    numbers, scale = quantize_rows(weight)
    rows, groups = numbers * scale[:, None], dequantize_groups(*quantize_groups(weight))
    for back in (rows, groups):
        assert back.isfinite().all()
        assert (back.abs() <= abs(value) * 1.01 + 1e-7).all()


def test_neither_the_layout_nor_the_chunk_matters(monkeypatch):
    weight = matrix()
    whole = quantize_groups(weight)
    monkeypatch.setattr(quantization, "CHUNK", 320)
    for other in (weight, weight.t().contiguous().t()):
        for a, b in zip(whole, quantize_groups(other), strict=True):
            assert torch.equal(a, b)
