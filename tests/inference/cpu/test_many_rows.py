"""Products of many rows: their precision, and that a row's results depend on nothing but the row and the weights."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from gpt2cli.inference.cpu.epilogue import ADD, GELU, STORE
from gpt2cli.inference.cpu.matmul_many_rows import multiply_many_rows
from gpt2cli.inference.cpu.packed_layout import BLOCK_OUTPUTS
from gpt2cli.inference.cpu.panel_sizes import MANY_ROWS_MULTIPLE, SEGMENTS, scratch_size
from gpt2cli.inference.cpu.rounded_rows import prepare_rows
from gpt2cli.inference.cpu.weight_packing import pack_matrix
from gpt2cli.inference.decoder import PRECISIONS, has_kernels
from gpt2cli.model.torch_precisions import round_weights
from tests.inference.cpu.running import run_compiled

pytestmark = pytest.mark.skipif(not has_kernels(), reason="no loops for this processor")


def product(matrix, precision, x, y, epilogue=STORE, cuts=(0, None)):
    """Multiply x (m, in) into y, with the outputs divided at these places. The memory is dirty at first."""
    m, width = x.shape
    rows = x if precision == "fp32" else np.full((m, width), 77, np.int16)
    steps = np.full((m, width // SEGMENTS[matrix.weights.dtype.name]), np.nan, np.float32)
    run_compiled(prepare_rows, matrix, x, rows, steps, 0, m // 2)
    run_compiled(prepare_rows, matrix, x, rows, steps, m // 2, m)
    scratch = np.full((scratch_size(m) // BLOCK_OUTPUTS, BLOCK_OUTPUTS), np.nan, np.float32)
    for first, last in pairwise(cuts):
        run_compiled(multiply_many_rows, matrix, rows, steps, y, epilogue, first, last or len(matrix.scale), scratch)
    return y


def example(precision, out, width, m):
    """A matrix, its weights as they are stored, and activations, some of which are large."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(out, width, generator=generator) * 0.02
    x = np.random.default_rng(0).standard_normal((m, width)).astype(np.float32)
    x[:, 5::97] *= 30
    return pack_matrix(weight.numpy(), None, precision), round_weights(weight, precision).double().numpy(), x


@pytest.mark.parametrize("precision", PRECISIONS)
def test_neither_other_rows_nor_the_division_of_outputs_change_a_row(precision):
    matrix, _, x = example(precision, 80, 320, 64)
    together = product(matrix, precision, x, np.zeros((64, 80), np.float32))
    for first, last in ((0, 8), (8, 40), (40, 64)):
        part = product(matrix, precision, x[first:last].copy(), np.zeros((last - first, 80), np.float32))
        np.testing.assert_array_equal(part, together[first:last])
    broken = x.copy()
    broken[1::2] = np.nan
    np.testing.assert_array_equal(product(matrix, precision, broken, np.zeros_like(together))[::2], together[::2])
    for cuts in ((0, 16, 80), (0, 48, 64, None)):
        np.testing.assert_array_equal(product(matrix, precision, x, np.zeros_like(together), cuts=cuts), together)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("width", [64, 704])
def test_the_error_is_that_of_fourteen_bits_or_less(precision, width):
    largest = {"fp32": 5e-7, "fp16": 1.6e-4, "bf16": 1.6e-4, "int8": 8e-5, "int4": 8e-5}[precision]
    matrix, weight, x = example(precision, 48, width, 32)
    exact = x.astype(np.float64) @ weight.T
    y = product(matrix, precision, x, np.full((32, 48), np.nan, np.float32))
    assert np.linalg.norm(y - exact) < largest * np.linalg.norm(exact)
    added = product(matrix, precision, x, np.ones((32, 48), np.float32), ADD)
    np.testing.assert_allclose(added, y + 1, atol=1e-5)
    through = torch.nn.functional.gelu(torch.from_numpy(y), approximate="tanh")
    np.testing.assert_allclose(product(matrix, precision, x, np.zeros_like(y), GELU), through, atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_only_the_asked_outputs_are_written(precision):
    matrix, _, x = example(precision, 80, 64, MANY_ROWS_MULTIPLE)
    y = product(matrix, precision, x, np.full((MANY_ROWS_MULTIPLE, 80), 7, np.float32), cuts=(16, 64))
    assert (y[:, :16] == 7).all()
    assert (y[:, 64:] == 7).all()
    assert (y[:, 16:64] != 7).all()


def test_an_outlier_costs_precision_only_in_its_segment():
    x = np.random.default_rng(0).standard_normal((8, 128)).astype(np.float32)
    x[:, 0] = 1000
    matrix = pack_matrix(torch.randn(16, 128).numpy(), None, "fp16")
    rows, steps = np.zeros((8, 128), np.int16), np.zeros((8, 4), np.float32)
    run_compiled(prepare_rows, matrix, x, rows, steps, 0, 8)
    values = rows.reshape(8, 4, 32) * steps[:, :, None]
    assert np.abs(values[:, 0].reshape(8, -1) - x[:, :32]).max() < 0.02
    assert np.abs(values[:, 1:].reshape(8, -1) - x[:, 32:]).max() < 2e-4
