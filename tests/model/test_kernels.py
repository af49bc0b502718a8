"""The compiled loops beside numpy in twice the precision, at sizes that are no multiple of anything."""

import numpy as np
import pytest
import torch

from gpt2cli.model.packed import PRECISIONS, _pack_matrix, has_kernels, round_weights

pytestmark = pytest.mark.skipif(not has_kernels(), reason="Numba is not there")


def multiply(matrix, x, then=0, before=0.0):
    """The kernel's product of x (m, in) with the matrix."""
    from gpt2cli.model.kernels.block import make_buffers
    from gpt2cli.model.kernels.products import product

    m, width = x.shape
    padded = make_buffers(m, width).normed
    padded[:m, :width] = x
    y = np.full((len(padded), len(matrix.scale)), before, np.float32)
    product(matrix, padded, y, then)
    return y[:m]


@pytest.mark.parametrize("m", [1, 2, 5, 131, 300])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("width", [70, 96])
def test_products_are_numpys(precision, m, width):
    torch.manual_seed(0)
    weight, bias = torch.randn(50, width), torch.randn(50)
    x = np.random.default_rng(0).standard_normal((m, width)) * np.logspace(-2, 2, m)[:, None]
    held = "int8" if precision == "int4" and width % 32 else precision
    exact = x @ round_weights(weight, held).double().numpy().T + bias.double().numpy()
    rounded = held in ("int8", "int4") or (m > 32 and held != "fp32")
    near = {"atol": 4e-3 if rounded else 2e-6, "rtol": 1e-5}
    matrix = _pack_matrix(weight, bias, precision)
    size = np.abs(x).max(axis=1, keepdims=True)
    np.testing.assert_allclose(multiply(matrix, x)[:, :50] / size, exact / size, **near)
    added = multiply(matrix, x, then=2, before=3.0)[:, :50]
    np.testing.assert_allclose((added - 3) / size, exact / size, atol=near["atol"] + 1e-4, rtol=1e-4)
    through = torch.nn.functional.gelu(torch.from_numpy(exact), approximate="tanh").numpy()
    np.testing.assert_allclose(multiply(matrix, x, then=1)[:, :50] / size, through / size, **near)


@pytest.mark.parametrize("m", [1, 4, 32])
@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_of_whole_numbers_do_not_overflow(precision, m, sign):
    width = 6400  # gpt2-xl's
    matrix = _pack_matrix(torch.ones(16, width), None, precision)
    np.testing.assert_allclose(multiply(matrix, np.full((m, width), sign * 7.0)), sign * 7.0 * width, rtol=2e-4)


@pytest.mark.parametrize("m", [2, 32])
def test_a_row_of_zeros_gives_the_bias(m):
    for precision in PRECISIONS:
        matrix = _pack_matrix(torch.randn(16, 64), torch.ones(16), precision)
        assert (multiply(matrix, np.zeros((m, 64))) == 1).all()


@pytest.mark.parametrize("m", [2, 32])
def test_what_is_not_a_number_shows(m):
    for precision in PRECISIONS:
        matrix = _pack_matrix(torch.randn(16, 64), torch.ones(16), precision)
        for broken in (np.nan, np.inf):
            x = np.ones((m, 64))
            x[1, 3] = broken
            y = multiply(matrix, x)
            assert not np.isfinite(y[1]).any()
            assert np.isfinite(y[0]).all()


def test_exp_is_numpys_and_what_is_not_a_number_stays_so():
    from gpt2cli.model.kernels.functions import exp

    x = np.linspace(-87, 88, 20_000).astype(np.float32)
    ours = np.array([exp(value) for value in x])
    np.testing.assert_allclose(ours, np.exp(x.astype(np.float64)), rtol=4e-7)
    assert np.isnan(exp(np.float32("nan")))
    assert 0 <= exp(np.float32("-inf")) < 1e-37
    assert exp(np.float32("inf")) > 1e38


def test_norms_are_pytorchs():
    from gpt2cli.model.kernels.functions import normalise

    x, norm = torch.randn(5, 70) * 3 + 1, torch.nn.LayerNorm(70)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    out = np.zeros((5, 128), np.float32)
    padded = np.zeros((5, 80), np.float32)
    padded[:, :70] = x.numpy()
    weights = torch.stack([norm.weight, norm.bias]).detach().numpy()
    normalise(padded, weights, norm.eps, out)
    torch.testing.assert_close(torch.from_numpy(out[:, :70]), norm(x).detach(), atol=2e-6, rtol=1e-5)
    assert (out[:, 70:] == 0).all()
