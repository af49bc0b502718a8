"""Products of one row and of few rows: numpy's in fp64, and bitwise the same whatever the number of rows beside."""

from itertools import product

import ml_dtypes
import numpy as np
import pytest

from gpt2cli.inference.cpu.compiler.functions import inlined
from gpt2cli.inference.cpu.epilogue import ADD, GELU, STORE
from gpt2cli.inference.cpu.matmul import multiply_few_rows, multiply_one_row
from gpt2cli.inference.cpu.packed_layout import BLOCK_OUTPUTS, Matrix
from gpt2cli.inference.decoder import PRECISIONS, has_kernels
from gpt2cli.model.quantization import GROUP
from tests.inference.cpu.running import run_compiled

pytestmark = pytest.mark.skipif(not has_kernels(), reason="no loops for this processor")
SHAPES = list(product((64, 128, 192, 320, 768, 1600), (16, 48)))
"""Widths and numbers of outputs."""


def make_matrix(rng, precision, out, width):
    """A random matrix, and what it stands for, (out, in) fp64."""
    normal = rng.standard_normal((out, width)).astype(np.float32)
    bias, ones, groups = rng.standard_normal(out).astype(np.float32), np.ones(out, np.float32), np.zeros((1, 1), "H")
    if precision == "int8":
        numbers = rng.integers(-127, 128, (out, width)).astype(np.int8)
        scale = rng.uniform(0.001, 0.02, out).astype(np.float32)
        return Matrix(numbers, groups, scale, bias, ones), numbers * scale[:, None].astype(float)
    if precision == "int4":
        numbers = rng.integers(-8, 8, (out, width))
        sizes = rng.uniform(0.01, 0.3, (out, width // GROUP)).astype(np.float16)
        halves = (numbers + 8).astype(np.uint8).reshape(out, -1, 2, GROUP // 2)
        packed = (halves[:, :, 0] | halves[:, :, 1] << 4).reshape(out, -1)
        exact = numbers * np.repeat(sizes.astype(float), GROUP, axis=1)
        return Matrix(packed, sizes.view(np.uint16), ones, bias, ones), exact
    held, bits = {
        "fp32": (np.float32, np.float32),
        "fp16": (np.float16, np.uint16),
        "bf16": (ml_dtypes.bfloat16, np.int16),
    }[precision]
    weights = normal.astype(held)
    return Matrix(weights.view(bits), groups, ones, bias, ones), weights.astype(float)


def make_rows(rng, precision, m, width):
    """Rows of activations as a matrix of this precision takes them, and what one unit of each row stands for."""
    if precision in ("int8", "int4"):
        largest = 32767 if precision == "int4" else min(32767, (2**31 - 1) // (127 * width))
        x = rng.integers(-largest, largest + 1, (m, width)).astype(np.int16)
        return x, rng.uniform(0.5, 2, m).astype(np.float32) / np.float32(largest)
    return rng.standard_normal((m, width)).astype(np.float32), np.ones(m, np.float32)


@inlined
def few_rows(matrix, x, steps, y, epilogue, first, last):
    for o in range(first, last, BLOCK_OUTPUTS):
        multiply_few_rows(matrix, x, steps, y, epilogue, o, o + BLOCK_OUTPUTS)


def products(run, matrix, x, steps, epilogue, before):
    y = before.copy()
    middle = len(matrix.scale) // 32 * 16  # two threads, each with a part of the outputs
    run_compiled(run, matrix, x, steps, y, epilogue, 0, middle)
    run_compiled(run, matrix, x, steps, y, epilogue, middle, len(matrix.scale))
    return y


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_row_is_numpys_and_bitwise_the_same_alone_and_among_others(precision):
    rng = np.random.default_rng(0)
    for (width, out), m, epilogue in product(SHAPES, (4, 8, 20), (STORE, GELU, ADD)):
        matrix, weights = make_matrix(rng, precision, out, width)
        x, steps = make_rows(rng, precision, m, width)
        before = rng.standard_normal((m, out)).astype(np.float32)
        if epilogue != ADD:
            before[:] = np.nan
        y = products(few_rows, matrix, x, steps, epilogue, before)
        alone = [
            products(multiply_one_row, matrix, x[r : r + 1], steps[r : r + 1], epilogue, before[r : r + 1])
            for r in range(m)
        ]
        assert (y.view(np.int32) == np.concatenate(alone).view(np.int32)).all(), (width, out, m, epilogue)
        exact = x * steps[:, None].astype(float) @ weights.T + matrix.bias
        if epilogue == GELU:
            exact *= (1 + np.tanh(np.sqrt(2 / np.pi) * (exact + 0.044715 * exact**3))) / 2
        elif epilogue == ADD:
            exact += before
        np.testing.assert_allclose(y, exact, rtol=2e-5, atol=2e-6 * np.abs(weights).sum(axis=1).max())


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_of_integers_do_not_overflow(sign):
    width = 6400  # gpt2-xl's
    x = np.full((4, width), sign * ((2**31 - 1) // (127 * width)), np.int16)
    one = np.ones(16, np.float32)
    matrix = Matrix(np.full((16, width), -127, np.int8), np.zeros((1, 1), np.uint16), one, 0 * one, one)
    y = np.zeros((4, 16), np.float32)
    run_compiled(few_rows, matrix, x, one[:4], y, STORE, 0, 16)
    np.testing.assert_allclose(y, -127.0 * width * x[0, 0], rtol=1e-6)
