"""A matrix as the compiled loops read it, and the sizes of its blocks. Imports neither Numba nor torch."""

from typing import Any, NamedTuple

import numpy as np

WIDTH_MULTIPLE = 64
"""Rows of weights and of activations are padded to a multiple of this."""
BLOCK_OUTPUTS = 16
"""Outputs of a matrix (rows of weights) are padded to a multiple of this, and computed in blocks of this size."""
TILE_ROWS = 4
"""Rows of activations that are multiplied together. A single row is multiplied alone."""


class Matrix(NamedTuple):
    """A linear layer. All but `weights` and `groups` are (out,) fp32.

    weights   (out, in), or (out, in / 2) in 4 bits
    groups    scales (out, in / GROUP) of the groups in 4 bits, as the bits of fp16; else unused
    scale     what one unit of a weight in 8 bits stands for; else 1
    bias      what is added to the products
    step      what one unit stands for if `matmul_int16` rounds the weights
    """

    weights: Any
    groups: Any
    scale: Any
    bias: Any
    step: Any


def padded_rows(m: int) -> int:
    """The number of rows to which m rows of activations must be padded."""
    return 1 if m == 1 else rounded_up(m, TILE_ROWS)


def rounded_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def look_up(table: Matrix, ids: Any) -> Any:
    """Rows `ids` of an embedding, in fp32."""
    rows = table.weights[ids]
    if rows.dtype == np.uint16:
        return rows.view(np.float16).astype(np.float32)
    if rows.dtype == np.int16:
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return rows * table.scale[ids, None]
