"""Writes quantized checkpoints. Their format is described in `quantized_weights`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpt2cli.checkpoints import rounding
from gpt2cli.checkpoints.mapped_files import Array
from gpt2cli.checkpoints.metadata import provenance_of
from gpt2cli.checkpoints.quantize_request import BITS, check_request
from gpt2cli.checkpoints.quantized_weights import (
    INDEX,
    MAX_ROWS,
    POSITIONS,
    SCALE,
    TABLE,
    dequantize_halves,
    dequantize_rows,
)
from gpt2cli.checkpoints.rounding import Rounding
from gpt2cli.checkpoints.save import save_tensors
from gpt2cli.checkpoints.torch_arrays import to_tensor
from gpt2cli.errors import UsageError
from gpt2cli.model.quantization import floats, group_size, is_cut, quantize_groups, quantize_rows
from gpt2cli.progress import Progress, ignore

if TYPE_CHECKING:
    from gpt2cli.checkpoints.model_spec import ModelSpec

STORED_BITS = {"int8": 8, "int4": 4}
SMALLEST_GROUP = 8
"""The fewest weights that share a scale of 16 bits. With fewer, a weight would take 8 bits or more."""


@dataclass(frozen=True)
class Quantized:
    """The bytes of the weights in fp32, those of the file, and the rounding error: its root mean square, divided by
    that of the weights."""

    fp32_bytes: int
    bytes: int
    error: float


def quantize_model(
    spec: "ModelSpec", bits: int, out: Path, *, force: bool = False, progress: Progress = ignore
) -> Quantized:
    """Write a model to the file `out` with its matrices in `bits`, 8 or 4.

    A model that is stored in 8 bits can be written in 4. An existing file is replaced only with `force`, and stays
    until the new one is complete. Raises UsageError for invalid arguments and for a model that is in so few bits
    already, CheckpointError for weights that do not fit into so few bits, ResourceError if the disk is full, and what
    `ModelSpec.read_stored` raises.
    """
    check_request(spec, bits, out, force)
    model = spec.read_stored(progress)
    stored = STORED_BITS.get(model.origin.precision)
    if stored is not None and stored <= bits:
        instead = "; --bits 4 makes it smaller" if stored > min(BITS) else ": quantize the model that it was made from"
        raise UsageError(f"{spec.name} is in {stored} bits already{instead}")
    metadata = spec.metadata()
    metadata.prompt_template(spec.name)  # raises if it lacks a part
    small: dict[str, Array] = {}
    total, fp32_bytes = Rounding(), 0
    for name in model.weights:
        exact = {name: floats(model.weights[name])}
        fp32_bytes += exact[name].nbytes
        stored_tensors = share_equal_rows(exact) if name == TABLE else exact
        rounded = quantize_tensors(stored_tensors, bits)
        total += check_rounding(stored_tensors, rounded)
        small |= rounded
        model.weights.release(name)
    tensors = {name: to_tensor(array) for name, array in small.items()}
    provenance = provenance_of(metadata, model.origin.other_tokenizer)
    save_tensors(tensors, model.config, out, template=metadata.template, provenance=provenance)
    return Quantized(fp32_bytes, out.stat().st_size, total.relative)


def quantize_tensors(tensors: Mapping[str, Array], bits: int = 8) -> dict[str, Array]:
    """Weights in fp32, under our names, with every matrix in `bits`, 8 or 4.

    The embedding, the head, and a matrix whose width no group size divides are always in 8. Positions stay in fp32:
    they are few, and one is added to every token.
    """
    small = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or name == POSITIONS:
            continue
        if bits == 4 and name.startswith("h.") and group_size(tensor.shape[1]) >= SMALLEST_GROUP:
            numbers, small[name + SCALE] = quantize_groups(tensor)
            small[name] = _pack_halves(numbers)
        else:
            small[name], small[name + SCALE] = quantize_rows(tensor)
    return small


def _pack_halves(numbers: NDArray[np.int8]) -> Array:
    """Numbers (out, in) from -8 to 7, two in each uint8."""
    shifted = (numbers + 8).astype(np.uint8)
    return shifted[:, 0::2] | shifted[:, 1::2] << 4


def share_rows(tensors: Mapping[str, Array], occurs: NDArray[np.bool_]) -> dict[str, Array]:
    """The tensors with one embedding row, the mean, for all tokens for which `occurs`, (V,) bool, is false."""
    table = tensors[TABLE]
    mean = table[~occurs].mean(axis=0, dtype=np.float64, keepdims=True)
    index = np.where(occurs, occurs.cumsum(), 0).astype(np.uint16)
    return {**tensors, TABLE: np.concatenate([mean.astype(table.dtype), table[occurs]]), INDEX: index}


def share_equal_rows(tensors: dict[str, Array]) -> dict[str, Array]:
    """The tensors with the most common embedding row stored once, if more than a twentieth of all tokens have it.

    A model with such a row was stored by `share_rows`, as the bundled one was. After tuning it still has one: tokens
    that never occur all get the same gradients.
    """
    table = tensors[TABLE]
    marks = np.einsum("ij,j->i", table, np.linspace(1, 2, table.shape[1]))  # in fp64, the same for equal rows
    _, first, counts = np.unique(marks, return_index=True, return_counts=True)
    same = (table == table[first[counts.argmax()]]).all(axis=1)
    enough = int(same.sum()) > len(table) / 20 and len(table) < MAX_ROWS
    return share_rows(tensors, ~same) if enough else tensors


def check_rounding(tensors: Mapping[str, Array], small: Mapping[str, Array]) -> Rounding:
    """The rounding errors in the result of `quantize_tensors`. Raises CheckpointError if they are too large."""
    total = Rounding()
    for name, tensor in tensors.items():
        if name + SCALE in small:
            numbers, scale = small[name], small[name + SCALE]
            in_rows = numbers.dtype == np.int8
            back = (dequantize_rows if in_rows else dequantize_halves)(numbers, scale)
            total += rounding.check_rounding(name, tensor, back, "int8" if in_rows else "int4", is_cut(scale))
    return total
