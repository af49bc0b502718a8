"""How packed weights lie in memory: names, shapes and types.

The package's docstring draws how a matrix is stored.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gpt2cli.config import GPTConfig
from gpt2cli.model.quantization import GROUP

LAYOUT_VERSION = 1
"""Changes whenever packed weights get other names, shapes, types or meanings."""
WIDTH_MULTIPLE = 64
"""Rows of weights and of activations are padded to a multiple of this."""
TILE_ROWS = 4
"""Rows of activations that are multiplied together if they are few. A single row is multiplied alone."""
BLOCK_OUTPUTS = 16
"""Outputs of a matrix (rows of weights) are padded to a multiple of this, and computed in blocks of this size."""
LARGEST_WEIGHT = 8191
"""The largest integer that products of many rows round weights to."""
SMALLEST = np.float32(1e-30)
"""Nothing is divided by a smaller number."""
MATRICES = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
"""The linear layers of a block."""
WEIGHT_TYPES: dict[str, type[np.generic]] = {
    "fp32": np.float32,
    "fp16": np.uint16,
    "bf16": np.int16,
    "int8": np.int8,
    "int4": np.uint8,
}
"""The type of `Matrix.weights` in each precision. 16-bit floating point numbers are kept as their bits."""

Table = dict[str, tuple[tuple[int, ...], "np.dtype[np.generic]"]]
"""The shape and the type of each array, by name."""


class Matrix(NamedTuple):
    """A linear layer. All but `weights` and `groups` are (out,) fp32.

    weights   (out, in), or (out, in / 2) in 4 bits
    groups    scales (out, in / GROUP) of the groups in 4 bits, as the bits of fp16; else unused
    scale     what one unit of a weight in 8 bits stands for; else 1
    bias      what is added to the products
    step      what one unit stands for if products of many rows round the weights
    """

    weights: Any
    groups: Any
    scale: Any
    bias: Any
    step: Any


def rounded_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def packed_matrix(arrays: Mapping[str, Any], name: str) -> Matrix:
    """The matrix of this name among the arrays of `pack_model`."""
    return Matrix(*(arrays[f"{name}.{field}"] for field in Matrix._fields))


def look_up(table: Matrix, ids: Any) -> Any:
    """Rows `ids` of an embedding, in fp32."""
    rows = table.weights[ids]
    if rows.dtype == np.uint16:
        return rows.view(np.float16).astype(np.float32)
    if rows.dtype == np.int16:
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return rows * table.scale[ids, None]


def block_precision(precision: str, n_embd: int) -> str:
    """The precision of the blocks' matrices: int8 if their rows are not whole groups of int4."""
    return "int8" if precision == "int4" and n_embd % GROUP else precision


def around_precision(precision: str) -> str:
    """The precision of the embedding and of the head: 8 bits if the blocks are in 4."""
    return "int8" if precision == "int4" else precision


def matrix_table(outputs: int, width: int, precision: str) -> Table:
    """The fields of a `Matrix` (outputs, width) whose weights are in this precision."""
    out, padded = rounded_up(outputs, BLOCK_OUTPUTS), rounded_up(width, WIDTH_MULTIPLE)
    is_int4, row = precision == "int4", ((out,), np.dtype(np.float32))
    return {
        "weights": ((out, padded // 2 if is_int4 else padded), np.dtype(WEIGHT_TYPES[precision])),
        "groups": ((out, padded // GROUP) if is_int4 else (1, 1), np.dtype(np.uint16)),
        "scale": row,
        "bias": row,
        "step": row,
    }


def packed_table(config: GPTConfig, precision: str) -> Table:
    """All arrays of a packed model, in the order in which `pack_model` makes them."""
    C, V = config.n_embd, config.vocab_size
    norm, around = ((2, C), np.dtype(np.float32)), around_precision(precision)
    sizes = ((3 * C, C), (C, C), (4 * C, C), (C, 4 * C))
    matrices = [matrix_table(out, width, block_precision(precision, C)) for out, width in sizes]
    tables = {name: _prefixed(name, table) for name, table in zip(MATRICES, matrices, strict=True)}
    attention, mlp = tables["attn.c_attn"] | tables["attn.c_proj"], tables["mlp.c_fc"] | tables["mlp.c_proj"]
    block = {"ln_1": norm} | attention | {"ln_2": norm} | mlp
    table = _prefixed("wte", matrix_table(V, C, around))
    if not config.tied:
        table |= _prefixed("lm_head", matrix_table(V, C, around))
    for layer in range(config.n_layer):
        table |= _prefixed(f"h.{layer}", block)
    return table | {"wpe": ((config.block_size, C), np.dtype(np.float32)), "ln_f": norm}


def _prefixed(name: str, table: Table) -> Table:
    return {f"{name}.{field}": value for field, value in table.items()}
