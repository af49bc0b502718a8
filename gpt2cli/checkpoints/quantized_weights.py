"""Reads quantized checkpoints: 8 or 4 bits a weight, and one embedding row for all tokens that never occur.

NAME, NAME.scale        a matrix in int8 (out, in), and the factor of each row (out,);
                        or two weights of 4 bits in each uint8 (out, in / 2), the even one in the lower half, both
                        stored plus 8, and the factor of each group of a row (out, groups)
wte.weight, wte.index   rows of the embedding, and the number of its row for each token of the vocabulary
"""

from collections.abc import Mapping
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from gpt2cli.checkpoints.lazy_arrays import LazyArray, derived
from gpt2cli.checkpoints.mapped_files import Array
from gpt2cli.checkpoints.tensor_checks import check_model_tensors
from gpt2cli.errors import CheckpointError
from gpt2cli.model.quantization import Floats, dequantize_groups, floats
from gpt2cli.untrusted import shown_name

SCALE, INDEX, TABLE, POSITIONS = ".scale", "wte.index", "wte.weight", "wpe.weight"
FIRST_MATRIX = "h.0.attn.c_attn.weight"
MAX_ROWS = int(np.iinfo(np.uint16).max) + 1


def precision(tensors: Mapping[str, LazyArray]) -> str:
    """The precision of stored tensors: int4, int8, or fp32 for any type of more bits."""
    types = [tensor.dtype for name, tensor in tensors.items() if name + SCALE in tensors]
    return "int4" if np.uint8 in types else "int8" if np.int8 in types else "fp32"


def to_floats(tensors: Mapping[str, LazyArray], where: object) -> dict[str, LazyArray]:
    """The tensors as floats, with an embedding row for every token. They are computed when they are read.

    Raises CheckpointError if they do not fit each other, or one has a type that is not used for weights.
    """
    check_model_tensors(tensors, where)
    tensors = _with_all_rows(tensors, where)
    whole = dict(tensors)
    for name, tensor in tensors.items():
        scale = tensors.get(name + SCALE)
        if tensor.dtype == np.int8 or (tensor.dtype == np.uint8 and scale is not None):
            bits, part = (8, "row") if tensor.dtype == np.int8 else (4, "group")
            if not _is_scale(scale, tensor):
                raise CheckpointError(
                    f"{where}: {shown_name(name)} is in {bits} bits without a scale for each {part}: get the file again"
                )
            del whole[name + SCALE]
            shape = (tensor.shape[0], tensor.shape[1] * 8 // bits)
            dequantize = dequantize_rows if bits == 8 else dequantize_halves
            whole[name] = derived(dequantize, shape, np.dtype(np.float32), tensor, scale)
    return whole


def dequantize_rows(numbers: Array, scale: Array) -> Floats:
    """The matrix (out, in) of integers (out, in) and the scales of its rows (out,)."""
    weight: Floats = numbers * floats(scale)[:, None]
    return weight


def dequantize_halves(packed: Array, scale: Array) -> Floats:
    """The matrix (out, in) of pairs of integers (out, in / 2) and the scales of its groups (out, groups)."""
    numbers: NDArray[np.int8] = np.empty((*packed.shape, 2), np.int8)
    numbers[:, :, 0], numbers[:, :, 1] = packed & 15, packed >> 4
    numbers -= 8
    return dequantize_groups(numbers.reshape(len(packed), -1), scale)


def _with_all_rows(tensors: Mapping[str, LazyArray], where: object) -> Mapping[str, LazyArray]:
    """The tensors with a row of the embedding for every token, in the type that it is stored in.

    The result can be much larger than the file. So it is made only if the other weights have the same width, and the
    index has at most MAX_ROWS entries.
    """
    if INDEX not in tensors:
        return tensors
    index, table = tensors[INDEX], tensors.get(TABLE)
    if index.dtype != np.uint16 or index.ndim != 1 or index.shape[0] > MAX_ROWS:
        raise CheckpointError(f"{where}: {INDEX} is no list of up to {MAX_ROWS} numbers in uint16: get the file again")
    if table is None or table.ndim != 2 or not _is_width(table.shape[1], tensors):
        raise CheckpointError(f"{where}: {TABLE} is not as wide as the other weights: get the file again")
    if int(index.read().max()) >= table.shape[0]:
        raise CheckpointError(f"{where}: {INDEX} names rows that are not there: get the file again")
    whole = {name: tensor for name, tensor in tensors.items() if name != INDEX}
    for name in (TABLE, TABLE + SCALE):
        rows = tensors.get(name)
        if rows is not None and rows.shape[:1] == table.shape[:1]:
            whole[name] = derived(
                lambda rows, index: rows[index], index.shape + rows.shape[1:], rows.dtype, rows, index
            )
    return whole


def _is_width(width: int, tensors: Mapping[str, LazyArray]) -> bool:
    """Whether the positions and the first matrix of the first block (perhaps in 4 bits) are of this width."""
    positions, matrix = tensors.get(POSITIONS), tensors.get(FIRST_MATRIX)
    if positions is None or matrix is None or positions.ndim != 2 or matrix.ndim != 2:
        return False
    columns = matrix.shape[1] * (2 if matrix.dtype == np.uint8 else 1)
    return positions.shape[1] == columns == width and matrix.shape[0] == 3 * width


def _is_scale(scale: LazyArray | None, matrix: LazyArray) -> TypeGuard[LazyArray]:
    """Whether there is a factor for each row of a matrix in int8, or for each group of one with two weights a byte."""
    if scale is None or matrix.ndim != 2 or scale.dtype not in (np.float16, np.float32):
        return False
    if matrix.dtype == np.int8:
        return scale.shape == matrix.shape[:1]
    return scale.ndim == 2 and scale.shape[0] == matrix.shape[0] and 2 * matrix.shape[1] % scale.shape[1] == 0
