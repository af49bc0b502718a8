"""Products with their rounding of activations compute what numpy computes in fp64, also at sizes that are padded."""

import numpy as np
import pytest
import torch

from gpt2cli.inference.cpu.compiler.functions import inlined
from gpt2cli.inference.cpu.epilogue import ADD, GELU, STORE
from gpt2cli.inference.cpu.matmul import multiply_few_rows, multiply_one_row
from gpt2cli.inference.cpu.matmul_many_rows import multiply_many_rows
from gpt2cli.inference.cpu.packed_layout import BLOCK_OUTPUTS, WIDTH_MULTIPLE, rounded_up
from gpt2cli.inference.cpu.panel_sizes import MANY_ROWS, SEGMENTS, padded_rows, scratch_size
from gpt2cli.inference.cpu.products import prepared, round_for
from gpt2cli.inference.cpu.rounded_rows import prepare_rows
from gpt2cli.inference.cpu.weight_packing import pack_matrix
from gpt2cli.inference.decoder import PRECISIONS, has_kernels
from gpt2cli.model.torch_precisions import round_weights
from tests.inference.cpu.running import run_compiled

pytestmark = pytest.mark.skipif(not has_kernels(), reason="no loops for this processor")


@inlined
def one_row(matrix, x, integers, steps, y, epilogue):
    round_for(matrix, x, integers, steps, 0, 1)
    multiply_one_row(matrix, prepared(matrix, x, integers), steps, y, epilogue, 0, y.shape[1])


@inlined
def few_rows(matrix, x, integers, steps, y, epilogue):
    round_for(matrix, x, integers, steps, 0, x.shape[0])
    for o in range(0, y.shape[1], BLOCK_OUTPUTS):
        multiply_few_rows(matrix, prepared(matrix, x, integers), steps, y, epilogue, o, o + BLOCK_OUTPUTS)


@inlined
def many_rows(matrix, x, integers, steps, y, epilogue, scratch):
    rows = x if matrix.weights.dtype == np.float32 else integers
    prepare_rows(matrix, x, rows, steps, 0, x.shape[0])
    multiply_many_rows(matrix, rows, steps, y, epilogue, 0, y.shape[1], scratch)


def multiply(matrix, x, epilogue=STORE, before=0.0):
    """The product of x (m, in) and the matrix, in the way that the number of rows suggests."""
    m, is_many = len(x), len(x) >= MANY_ROWS
    padded = np.zeros((padded_rows(m, is_many), rounded_up(x.shape[1], WIDTH_MULTIPLE)), np.float32)
    padded[:m, : x.shape[1]] = x
    integers, y = np.zeros(padded.shape, np.int16), np.full((len(padded), len(matrix.scale)), before, np.float32)
    if is_many:
        steps = np.zeros((len(padded), padded.shape[1] // SEGMENTS[matrix.weights.dtype.name]), np.float32)
        scratch = np.zeros((scratch_size(len(padded)) // BLOCK_OUTPUTS, BLOCK_OUTPUTS), np.float32)
        run_compiled(many_rows, matrix, padded, integers, steps, y, epilogue, scratch)
    else:
        steps = np.zeros(len(padded), np.float32)
        run_compiled(one_row if m == 1 else few_rows, matrix, padded, integers, steps, y, epilogue)
    return y[:m]


@pytest.mark.parametrize("m", [1, 2, 5, 31, 32, 131])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("width", [70, 96])
def test_products_are_numpys(precision, m, width):
    torch.manual_seed(0)
    weight, bias = torch.randn(50, width), torch.randn(50)
    x = np.random.default_rng(0).standard_normal((m, width)) * np.logspace(-2, 2, m)[:, None]
    held = "int8" if precision == "int4" and width % 32 else precision
    exact = x @ round_weights(weight, held).double().numpy().T + bias.double().numpy()
    rounded = m >= MANY_ROWS and held not in ("fp32", "int8")
    near = {"atol": 3e-3 if rounded else 1e-3 if held in ("int8", "int4") else 2e-6, "rtol": 1e-5}
    matrix = pack_matrix(weight.numpy(), bias.numpy(), held)
    size = np.abs(x).max(axis=1, keepdims=True)
    np.testing.assert_allclose(multiply(matrix, x)[:, :50] / size, exact / size, **near)
    added = multiply(matrix, x, ADD, before=3.0)[:, :50]
    np.testing.assert_allclose((added - 3) / size, exact / size, atol=near["atol"] + 1e-4, rtol=1e-4)
    through = torch.nn.functional.gelu(torch.from_numpy(exact), approximate="tanh").numpy()
    np.testing.assert_allclose(multiply(matrix, x, GELU)[:, :50] / size, through / size, **near)


@pytest.mark.parametrize("m", [1, 4, 32])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "int4"])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_of_whole_numbers_do_not_overflow(precision, m, sign):
    width = 6400  # gpt2-xl's
    matrix = pack_matrix(np.ones((16, width), np.float32), None, precision)
    np.testing.assert_allclose(multiply(matrix, np.full((m, width), sign * 7.0)), sign * 7.0 * width, rtol=1e-5)


@pytest.mark.parametrize("m", [1, 2, 32])
def test_a_row_of_zeros_gives_the_bias(m):
    for precision in PRECISIONS:
        matrix = pack_matrix(torch.randn(16, 64).numpy(), np.ones(16), precision)
        assert (multiply(matrix, np.zeros((m, 64))) == 1).all()


@pytest.mark.parametrize("m", [2, 32])
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_nan_and_infinity_propagate(m, broken):
    weight = torch.randn(16, 64)
    for precision in PRECISIONS:
        x = np.ones((m, 64))
        x[1, 3] = broken
        y = multiply(pack_matrix(weight.numpy(), np.ones(16), precision), x)
        assert not np.isfinite(y[1]).any()
        assert np.isfinite(y[0]).all()
    weight[5, 7] = broken
    for precision in ("fp32", "fp16", "bf16"):
        y = multiply(pack_matrix(weight.numpy(), np.ones(16), precision), np.ones((m, 64)))
        assert not np.isfinite(y[:, 5]).any()
        assert np.isfinite(y[:, 6]).all()


@pytest.mark.parametrize("m", [1, 2, 32])
def test_tiny_numbers_do_not_become_infinite(m):
    for precision in PRECISIONS:
        matrix = pack_matrix(np.full((16, 64), 1e-38, np.float32), np.ones(16), precision)
        np.testing.assert_allclose(multiply(matrix, np.full((m, 64), 1e-38)), 1)


def test_outliers_cost_little_precision():
    """One activation in 64 is a hundred times as large as the others, and its weights are as much smaller."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((MANY_ROWS, 768)), rng.standard_normal((16, 768))
    x[:, ::64] *= 100
    weight[:, ::64] /= 100
    matrix = pack_matrix(weight.astype(np.float32), None, "fp16")
    exact = x @ weight.T
    error = np.linalg.norm(multiply(matrix, x)[:, :16] - exact) / np.linalg.norm(exact)
    assert error < 2e-3  # bf16: 2.4e-3
