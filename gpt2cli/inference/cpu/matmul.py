"""Products of activations and a GPT's matrices. The package's docstring draws how the matrices are stored.

All arrays are contiguous. Activations are (m, in), with one token a row, of one sequence or of several.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import prange, types
from numba.extending import overload

from gpt2cli.inference.cpu.compiling import compiled, parallel
from gpt2cli.inference.cpu.dot_kernels import TASK_ROWS, TILE_ROWS, dot_products
from gpt2cli.inference.cpu.elementwise import STORE, finish, round_rows
from gpt2cli.inference.cpu.matmul_int16 import matmul_int16
from gpt2cli.inference.cpu.packed_layout import BLOCK_OUTPUTS, WIDTH_MULTIPLE, Matrix, rounded_up

MANY_ROWS = 32
"""From this sequence length on, `matmul_int16` is faster."""


def padded_rows(m: int) -> int:
    """The number of rows to which m rows of activations must be padded."""
    return 1 if m == 1 else rounded_up(m, TILE_ROWS)


def look_up(table: Matrix, ids: Any) -> Any:
    """Rows `ids` of an embedding, in fp32."""
    rows = table.weights[ids]
    if rows.dtype == np.uint16:
        return rows.view(np.float16).astype(np.float32)
    if rows.dtype == np.int16:
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return rows * table.scale[ids, None]


def multiply(matrix: Matrix, x: Any, sequence_length: int) -> Any:
    """The product of x (m, in) and a matrix: a new array, possibly padded, of at least (m, out) elements."""
    m, width = x.shape
    padded = np.zeros((padded_rows(m), rounded_up(width, WIDTH_MULTIPLE)), np.float32)
    padded[:m, :width] = x
    y = np.empty((len(padded), len(matrix.scale)), np.float32)
    matmul(matrix, padded, y, STORE, sequence_length)
    return y


def matmul(matrix: Matrix, x: Any, y: Any, epilogue: int, sequence_length: int) -> None:
    """Multiply x (m, in) by a matrix. The epilogue STORE, GELU or ADD says how the results get into y (m, out).

    m is 1 or a multiple of TILE_ROWS. `sequence_length` is the number of tokens in each row of the batch. It, and not
    m, decides whether `matmul_int16` is used, so that a sequence's results do not depend on the size of its batch.
    """
    many = sequence_length >= MANY_ROWS and matrix.weights.dtype not in (np.float32, np.int8)
    (matmul_int16 if many else _matmul_few_rows)(matrix, x, y, epilogue)


@parallel
def _matmul_few_rows(matrix: Matrix, x: Any, y: Any, epilogue: int) -> None:
    """As `matmul`. A task computes BLOCK_OUTPUTS outputs of up to TASK_ROWS rows."""
    m = x.shape[0]
    rows, steps = convert_activations(matrix.weights, x)
    blocks = len(matrix.scale) // BLOCK_OUTPUTS
    for task in prange(-(-m // TASK_ROWS) * blocks):
        start, first = task // blocks * TASK_ROWS, task % blocks * BLOCK_OUTPUTS
        sums = np.empty((TILE_ROWS, BLOCK_OUTPUTS), np.float32)
        for r in range(start, min(start + TASK_ROWS, m), TILE_ROWS):
            if m == 1:
                for i in range(BLOCK_OUTPUTS):
                    (sums[0, i],) = dot_products(matrix.weights, matrix.groups, first + i, rows, 0, 1, 1)
            else:
                for i in range(0, BLOCK_OUTPUTS, 2):
                    eight = dot_products(matrix.weights, matrix.groups, first + i, rows, r, 2, 4)
                    sums[0, i], sums[1, i], sums[2, i], sums[3, i] = eight[:4]
                    sums[0, i + 1], sums[1, i + 1], sums[2, i + 1], sums[3, i + 1] = eight[4:]
            n = min(m, TILE_ROWS)
            for t in range(n):
                for i in range(BLOCK_OUTPUTS):
                    sums[t, i] *= steps[r + t]
            finish(sums, n, matrix.scale, matrix.bias, y, r, first, epilogue)


def convert_activations(weights: Any, x: Any) -> Any:
    """x (m, in) in the type that these weights are multiplied by, and a factor (m,) for the results of each row."""
    raise NotImplementedError  # Numba compiles the overload below


@overload(convert_activations)
def _convert_activations(weights: Any, x: Any) -> Callable[[Any, Any], Any]:
    def keep(weights: Any, x: Any) -> Any:
        return x, np.ones(x.shape[0], np.float32)

    def round_for_int8(weights: Any, x: Any) -> Any:  # the sum over a whole row must fit into 32 bits
        return _rounded_rows(x, min(32767, (2**31 - 1) // (127 * x.shape[1])))

    def round_for_int4(weights: Any, x: Any) -> Any:  # only the sum over a group must
        return _rounded_rows(x, 32767)

    return {types.int8: round_for_int8, types.uint8: round_for_int4}.get(weights.dtype, keep)


@compiled
def _rounded_rows(x: Any, largest: int) -> Any:
    rows, steps = np.empty(x.shape, np.int16), np.empty(len(x), np.float32)
    round_rows(x, largest, rows, steps)
    return rows, steps
