"""The functions of numbers and of rows compute what numpy computes in fp64, whatever the number of rows."""

import numpy as np
import pytest

from gpt2cli.inference.cpu import vector_math as vm
from gpt2cli.inference.cpu.compiler.functions import emitted, inlined
from gpt2cli.inference.cpu.compiler.values import REAL, Number
from gpt2cli.inference.cpu.elementwise import layer_norm, round_rows
from gpt2cli.inference.cpu.packed_layout import WIDTH_MULTIPLE, rounded_up
from gpt2cli.inference.decoder import has_kernels
from tests.inference.cpu.running import run_compiled

pytestmark = pytest.mark.skipif(not has_kernels(), reason="no loops for this processor")


@emitted
def gelu(b, x):
    return Number(REAL, vm.gelu(b, x.llvm))


@emitted
def exp(b, x):
    return Number(REAL, vm.exponential(b, x.llvm))


@inlined
def gelu_of_all(x):
    for i in range(len(x)):
        x[i] = gelu(x[i])


@inlined
def exp_of_all(x):
    for i in range(len(x)):
        x[i] = exp(x[i])


def test_exp_is_numpys_and_nan_stays_nan():
    x = np.linspace(-87, 88, 20_000).astype(np.float32)
    ours = x.copy()
    run_compiled(exp_of_all, ours)
    np.testing.assert_allclose(ours, np.exp(x.astype(np.float64)), rtol=4e-7)
    special = np.array([np.nan, -np.inf, np.inf], np.float32)
    run_compiled(exp_of_all, special)
    assert np.isnan(special[0])
    assert 0 <= special[1] < 1e-37
    assert special[2] > 1e38


def test_gelu_is_numpys_and_the_same_for_each_place_in_a_row():
    x = np.linspace(-12, 12, 2003).astype(np.float32)
    wide = x.astype(np.float64)
    exact = wide / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
    ours = x.copy()
    run_compiled(gelu_of_all, ours)
    np.testing.assert_allclose(ours, exact, atol=2e-6, rtol=2e-6)
    for i in range(0, len(x), 97):
        alone = x[i : i + 1].copy()
        run_compiled(gelu_of_all, alone)
        assert alone[0] == ours[i]
    broken = np.full(20, np.nan, np.float32)
    run_compiled(gelu_of_all, broken)
    assert np.isnan(broken).all()


@pytest.mark.parametrize("C", [1, 17, 64, 70, 768])
def test_norms_are_numpys_and_a_row_is_the_same_alone(C):
    rng = np.random.default_rng(0)
    x, out = np.zeros((2, 5, rounded_up(C, WIDTH_MULTIPLE)), np.float32)
    x[:, :C] = rng.standard_normal((5, C)) * 3 + 1
    ln = rng.standard_normal((2, C)).astype(np.float32)
    out[:] = 9
    run_compiled(layer_norm, x, ln, np.float32(1e-5), out, 0, 2)
    assert (out[2:] == 9).all()
    run_compiled(layer_norm, x, ln, np.float32(1e-5), out, 2, 5)
    wide = x[:, :C].astype(np.float64)
    normed = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(out[:, :C], normed * ln[0] + ln[1], atol=3e-6, rtol=1e-5)
    assert (out[:, C:] == 0).all()
    alone = np.empty_like(x[:1])
    run_compiled(layer_norm, x[3:4].copy(), ln, np.float32(1e-5), alone, 0, 1)
    assert (alone[0] == out[3]).all()


def test_nan_and_infinity_propagate_through_a_norm():
    x, ln = np.ones((3, 64), np.float32), np.ones((2, 50), np.float32)
    x[0, 49], x[1, 3] = np.nan, np.inf
    out = np.empty_like(x)
    run_compiled(layer_norm, x, ln, np.float32(1e-5), out, 0, 3)
    assert np.isnan(out[:2, :50]).all()
    assert (out[2, :50] == 1).all()


def test_rows_are_rounded_to_their_largest_number():
    x = np.random.default_rng(0).standard_normal((3, 70)).astype(np.float32)
    x[1], x[2, 5] = 0, np.inf
    rows, steps = np.empty(x.shape, np.int16), np.empty(3, np.float32)
    run_compiled(round_rows, x, 127, rows, steps)
    assert np.abs(rows[0]).max() == 127
    assert np.abs(rows[0] * steps[0] - x[0]).max() <= 0.501 * steps[0]
    assert not rows[1].any()
    assert not np.isfinite(steps[2])
