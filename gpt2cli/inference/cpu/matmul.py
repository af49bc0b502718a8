"""Products with the matrices of a GPT, in whatever type they are held: see `vectors.py`.

All arrays are contiguous. Rows of activations are m tokens, of whatever sequences.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import prange, types
from numba.extending import overload

from gpt2cli.inference.cpu.compiling import compiled, parallel
from gpt2cli.inference.cpu.dot_kernels import CHUNK, OUTS, ROWS, STRIDE, tile
from gpt2cli.inference.cpu.elementwise import STORE, finish, round_rows
from gpt2cli.inference.cpu.matmul_int16 import product_by_panels

MANY = 32
"""So many rows of activations are worth making panels of weights."""


class Matrix(NamedTuple):
    """A linear layer, with weights (out, in) and `groups` as in `vectors.py`, and (out,) fp32 for each of its rows:

    scale   what one in its weights counts, if they are whole numbers of 8 bits; else 1
    bias    what is added to its products
    step    what one counts in the whole numbers that `panels.py` makes of its weights
    """

    weights: Any
    groups: Any
    scale: Any
    bias: Any
    step: Any


def padded_shape(out: int, width: int) -> tuple[int, int]:
    """The shape that a matrix (out, in) must have."""
    return rounded_up(out, OUTS), rounded_up(width, STRIDE)


def rounded_up(n: int, to: int) -> int:
    return -(-n // to) * to


def look_up(table: Matrix, ids: Any) -> Any:
    """Rows `ids` of an embedding, in fp32."""
    rows = table.weights[ids]
    if rows.dtype == np.uint16:
        return rows.view(np.float16).astype(np.float32)
    if rows.dtype == np.int16:
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return rows * table.scale[ids, None]


def multiply(matrix: Matrix, x: Any, together: int) -> Any:
    """The product of rows x (m, in) with a matrix; there may be more rows and columns in it than asked for.

    `together` is as in `product`.
    """
    m, width = x.shape
    padded = np.zeros((1 if m == 1 else rounded_up(m, ROWS), rounded_up(width, STRIDE)), np.float32)
    padded[:m, :width] = x
    y = np.empty((len(padded), len(matrix.scale)), np.float32)
    product(matrix, padded, y, STORE, together)
    return y


def product(matrix: Matrix, x: Any, y: Any, then: int, together: int) -> None:
    """Multiply rows x (m, in) by a matrix: into y (m, out), through GELU into y, or added to y.

    m is 1 or a multiple of ROWS. `together` is how many rows a text has at the least: how many texts there are has no
    say in how they are multiplied, so that a text comes out the same whatever is beside it.
    """
    by_panels = together >= MANY and matrix.weights.dtype not in (np.float32, np.int8)
    (product_by_panels if by_panels else _product)(matrix, x, y, then)


@parallel
def _product(matrix: Matrix, x: Any, y: Any, then: int) -> None:
    m = x.shape[0]
    rows, steps = activations(matrix.weights, x)
    blocks = len(matrix.scale) // OUTS
    for task in prange(-(-m // CHUNK) * blocks):
        start, first = task // blocks * CHUNK, task % blocks * OUTS
        sums = np.empty((ROWS, OUTS), np.float32)
        for r in range(start, min(start + CHUNK, m), ROWS):
            if m == 1:
                for i in range(OUTS):
                    (sums[0, i],) = tile(matrix.weights, matrix.groups, first + i, rows, 0, 1, 1)
            else:
                for i in range(0, OUTS, 2):
                    eight = tile(matrix.weights, matrix.groups, first + i, rows, r, 2, 4)
                    sums[0, i], sums[1, i], sums[2, i], sums[3, i] = eight[:4]
                    sums[0, i + 1], sums[1, i + 1], sums[2, i + 1], sums[3, i + 1] = eight[4:]
            n = min(m, ROWS)
            for t in range(n):
                for i in range(OUTS):
                    sums[t, i] *= steps[r + t]
            finish(sums, n, matrix.scale, matrix.bias, y, r, first, then)


def activations(weights: Any, x: Any) -> Any:
    """Rows of x (m, in) in the type that the weights are multiplied by, and what each of their products is short of."""
    raise NotImplementedError  # what Numba compiles is chosen below


@overload(activations)
def _activations(weights: Any, x: Any) -> Callable[[Any, Any], Any]:
    def as_they_are(weights: Any, x: Any) -> Any:
        return x, np.ones(x.shape[0], np.float32)

    def for_int8(weights: Any, x: Any) -> Any:
        return _rounded_rows(x, min(32767, (2**31 - 1) // (127 * x.shape[1])))

    def for_int4(weights: Any, x: Any) -> Any:
        return _rounded_rows(x, 32767)  # sums are in whole numbers within a group only

    return {types.int8: for_int8, types.uint8: for_int4}.get(weights.dtype, as_they_are)


@compiled
def _rounded_rows(x: Any, largest: int) -> Any:
    rows, steps = np.empty(x.shape, np.int16), np.empty(len(x), np.float32)
    round_rows(x, largest, rows, steps)
    return rows, steps
