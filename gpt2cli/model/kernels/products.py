"""Products with the matrices of a GPT, in whatever type they are held: see `tiles.py`.

All arrays are contiguous. Rows of activations are m tokens, of whatever sequences.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import prange, types
from numba.extending import overload

from gpt2cli.model.kernels.compiling import compiled, parallel
from gpt2cli.model.kernels.functions import gelu
from gpt2cli.model.kernels.tiles import ROWS, STRIDE, tile

OUTS = 16
"""Rows of weights come in a multiple of this."""
CHUNK = 128
"""Rows of activations that are multiplied before going on in the weights: what the processor's cache holds."""
STORE, GELU, ADD = 0, 1, 2
"""What a product does with its results."""


class Matrix(NamedTuple):
    """A linear layer: weights (out, in), with `scale` (out,) and `bias` (out,) fp32; `groups`: see `tiles.py`."""

    weights: Any
    groups: Any
    scale: Any
    bias: Any


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


def multiply(matrix: Matrix, x: Any) -> Any:
    """The product of rows x (m, in) with a matrix; there may be more rows and columns in it than asked for."""
    m, width = x.shape
    padded = np.zeros((1 if m == 1 else rounded_up(m, ROWS), rounded_up(width, STRIDE)), np.float32)
    padded[:m, :width] = x
    y = np.empty((len(padded), len(matrix.scale)), np.float32)
    product(matrix, padded, y, STORE)
    return y


@parallel
def product(matrix: Matrix, x: Any, y: Any, then: int) -> None:
    """Multiply rows x (m, in) by a matrix: into y (m, out), through GELU into y, or added to y."""
    m = x.shape[0]
    rows, steps = activations(matrix.weights, x)
    blocks = len(matrix.scale) // OUTS
    for task in prange(-(-m // CHUNK) * blocks):
        start, first = task // blocks * CHUNK, task % blocks * OUTS
        sums = np.empty((ROWS, OUTS), np.float32)
        if m == 1:
            for i in range(OUTS):
                (sums[0, i],) = tile(matrix.weights, matrix.groups, first + i, rows, 0, 1, 1)
            _finish(sums, 1, matrix, steps, y, 0, first, then)
        else:
            for r in range(start, min(start + CHUNK, m), ROWS):
                for i in range(0, OUTS, 2):
                    eight = tile(matrix.weights, matrix.groups, first + i, rows, r, 2, 4)
                    sums[0, i], sums[1, i], sums[2, i], sums[3, i] = eight[:4]
                    sums[0, i + 1], sums[1, i + 1], sums[2, i + 1], sums[3, i + 1] = eight[4:]
                _finish(sums, ROWS, matrix, steps, y, r, first, then)


@compiled
def _finish(sums: Any, n: int, matrix: Matrix, steps: Any, y: Any, r: int, first: int, then: int) -> None:
    """Write the sums (n, OUTS) of rows from r on and outputs from `first` on."""
    for t in range(n):
        for i in range(OUTS):
            sums[t, i] = sums[t, i] * matrix.scale[first + i] * steps[r + t] + matrix.bias[first + i]
        if then == ADD:
            for i in range(OUTS):
                y[r + t, first + i] += sums[t, i]
        elif then == GELU:
            for i in range(OUTS):
                y[r + t, first + i] = gelu(sums[t, i])
        else:
            for i in range(OUTS):
                y[r + t, first + i] = sums[t, i]


def activations(weights: Any, x: Any) -> Any:
    """Rows of x (m, in) in the type that the weights are multiplied by, and what each of their products is short of."""
    raise NotImplementedError  # what Numba compiles is chosen below


@overload(activations)
def _activations(weights: Any, x: Any) -> Callable[[Any, Any], Any]:
    def as_they_are(weights: Any, x: Any) -> Any:
        return x, np.ones(x.shape[0], np.float32)

    def for_int8(weights: Any, x: Any) -> Any:
        return round_rows(x, min(32767, (2**31 - 1) // (127 * x.shape[1])))

    def for_int4(weights: Any, x: Any) -> Any:
        return round_rows(x, 32767)  # sums are in whole numbers within a group only

    return {types.int8: for_int8, types.uint8: for_int4}.get(weights.dtype, as_they_are)


@compiled
def round_rows(x: Any, largest: int) -> tuple[Any, Any]:
    """Each row in whole numbers, int16, up to `largest` and the size of one: so that no sum of products overflows."""
    rows, steps = np.empty(x.shape, np.int16), np.empty(x.shape[0], np.float32)
    for r in range(x.shape[0]):
        extreme, broken = np.float32(0), np.float32(0)
        for c in range(x.shape[1]):
            extreme = max(extreme, abs(x[r, c]))
            broken += x[r, c] * np.float32(0)  # stays 0 unless there is a number that is not finite
        steps[r] = extreme / np.float32(largest) + broken
        inverse = np.float32(largest) / extreme if extreme > 0 else np.float32(0)
        for c in range(x.shape[1]):
            rows[r, c] = np.int16(np.int32(np.rint(x[r, c] * inverse)))
    return rows, steps
