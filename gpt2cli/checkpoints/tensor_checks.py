"""Checks of the tensors in a checkpoint file. They run before anything is computed with a tensor."""

import math
from collections.abc import Iterator, Mapping

import ml_dtypes
import numpy as np

from gpt2cli.checkpoints.lazy_arrays import LazyArray
from gpt2cli.checkpoints.limits import MAX_DIMENSIONS, MAX_NAME, MAX_TENSORS
from gpt2cli.checkpoints.mapped_files import Array
from gpt2cli.errors import CheckpointError
from gpt2cli.untrusted import shown_name

WEIGHT_TYPES = frozenset(map(np.dtype, ("float16", ml_dtypes.bfloat16, "float32", "float64")))
"""The types of weights, and of the scales of quantized weights."""
_MASKS_AND_QUANTIZED = frozenset(map(np.dtype, ("bool", "uint8", "int8", "uint16", "int16", "int32", "int64")))
CHUNK = 2**18
"""Weights that are looked at together: they stay in the processor's cache."""


def check_model_tensors(tensors: Mapping[str, LazyArray], where: object) -> None:
    """Raise CheckpointError, naming the tensor, unless each can be a weight, a mask, or a part of a quantized weight.

    All are then not empty, and of a type that NumPy compares and copies.
    """
    if len(tensors) > MAX_TENSORS:
        raise CheckpointError(f"{where} holds {len(tensors)} tensors, more than {MAX_TENSORS}: it is no GPT-2")
    for name, tensor in tensors.items():
        if len(name) > MAX_NAME:
            raise CheckpointError(f"{where} holds a tensor with a name of {len(name)} characters: it is no GPT-2")
        if tensor.dtype not in WEIGHT_TYPES | _MASKS_AND_QUANTIZED:
            raise CheckpointError(f"{where}: {shown_name(name)} is {tensor.dtype}, not floating point: save it as fp32")
        if tensor.ndim > MAX_DIMENSIONS or math.prod(tensor.shape) == 0:
            shape = tuple(tensor.shape[:MAX_DIMENSIONS])
            raise CheckpointError(
                f"{where}: {shown_name(name)} has the impossible shape {shape}: fetch or save it again"
            )


def chunks(array: Array) -> Iterator[Array]:
    """The values of an array in the order of memory, at most CHUNK at a time."""
    flat = array.ravel(order="K")
    return (flat[start : start + CHUNK] for start in range(0, flat.size, CHUNK))


def is_finite(array: Array) -> bool:
    """Whether all values of a floating-point array are finite in fp32, also those in fp64."""
    return all(map(_all_finite, chunks(array)))


def _all_finite(part: Array) -> bool:
    if part.dtype == np.float64:
        with np.errstate(over="ignore"):
            part = part.astype(np.float32)
    # in infinity and NaN, all bits of the exponent are set; to compare the bits is faster, most of all with 16 of them
    bits, infinity = (array.view(f"i{part.itemsize}") for array in (part, np.array(np.inf, part.dtype)))
    return bool((bits & np.iinfo(bits.dtype).max).max() < infinity)
