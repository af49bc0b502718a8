"""Products of activations and a GPT's matrices, of one row or of few rows. See `row_products.py` for their loops.

All arrays are contiguous. Activations are (m, in), with one token a row, of one sequence or of several.
"""

from typing import Any

import numpy as np

from gpt2cli.inference.cpu.compiler.functions import inlined
from gpt2cli.inference.cpu.packed_layout import BLOCK_OUTPUTS, TILE_ROWS, Matrix
from gpt2cli.inference.cpu.row_products import multiply_block


@inlined
def multiply_one_row(matrix: Matrix, x: Any, steps: Any, y: Any, epilogue: int, first: int, last: int) -> None:
    """Outputs `first` to `last`, multiples of BLOCK_OUTPUTS, of the product of one row x (1, in) and a matrix.

    x is fp32, or int16 for weights in 8 and 4 bits, with `steps` (1,), what one unit of x stands for. The epilogue
    STORE, GELU or ADD says how the results get into y (1, out).
    """
    for o in range(first, last, BLOCK_OUTPUTS):
        multiply_block(matrix, o, o, x, steps, 0, 1, y, epilogue)


@inlined
def multiply_few_rows(matrix: Matrix, x: Any, steps: Any, y: Any, epilogue: int, first: int, following: int) -> None:
    """BLOCK_OUTPUTS outputs from `first` on, for x (m, in), `steps` (m,) and y (m, out). m is a multiple of TILE_ROWS.

    A row's results are bitwise those of `multiply_one_row`. `following` is the first output of the block that this
    thread computes next.
    """
    for r in range(0, x.shape[0], TILE_ROWS):
        multiply_block(matrix, first, following, x, steps, r, TILE_ROWS, y, epilogue)


@inlined
def largest_integer(matrix: Matrix, width: int) -> int:
    """The largest integer that activations of `width` numbers are rounded to, so that no sum exceeds 32 bits.

    In 8 bits, that is the sum of a whole row; in 4 bits, that of a group.
    """
    if matrix.weights.dtype == np.int8:
        return min(32767, (2**31 - 1) // (127 * width))
    return 32767
