"""Weights in 8 or 4 bits: integers, and scales to multiply them by. Computed from the weights alone.

Weights are NumPy arrays of fp32, fp16 or bf16, which NumPy has no type for: it is `ml_dtypes.bfloat16`.
"""

import math

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from gpt2cli.errors import CheckpointError

BF16: np.dtype[np.generic] = np.dtype(ml_dtypes.bfloat16)
DTYPES: dict[str, np.dtype[np.generic]] = {"fp32": np.dtype(np.float32), "bf16": BF16, "fp16": np.dtype(np.float16)}
"""The precisions that are a type of floating point numbers."""
GROUP = 32
"""Neighbouring weights in a row that share a scale in 4 bits."""
CHUNK = 2**17
"""Weights that are rounded at a time, so that the intermediate results stay in the processor's cache."""
_SHRINKINGS = (1.0, 0.92, 0.84)  # six of them take twice as long and reduce the error from 8.3% to 8.2%
_LEAST = np.finfo(np.float32).tiny

Array = NDArray[np.generic]
Floats = NDArray[np.float32]


def floats(weight: Array) -> Floats:
    """The same numbers in fp32: the array itself if it is in fp32."""
    return weight.astype(np.float32, copy=False)


def quantize_rows(weight: Array) -> tuple[NDArray[np.int8], Floats]:
    """A matrix (out, in) in int8, and a scale for each row, (out,) fp32. A row's largest weight becomes 127 or -127."""
    numbers = np.empty(weight.shape, np.int8)
    scale = np.empty(len(weight), np.float32)
    rows = max(1, CHUNK // weight.shape[1])
    for start in range(0, len(weight), rows):
        part = np.ascontiguousarray(
            weight[start : start + rows], np.float32
        )  # a transposed matrix takes 10 times longer
        largest = np.maximum(part.max(axis=1), -part.min(axis=1))
        scale[start : start + rows] = each = np.maximum(largest / np.float32(127), _LEAST)
        rounded = part / each[:, None]
        numbers[start : start + rows] = np.rint(rounded, out=rounded)
    return numbers, scale


def group_size(width: int) -> int:
    """How many weights share a scale in 4 bits, in rows of `width`: GROUP, or less if GROUP does not divide it."""
    return math.gcd(GROUP, width)


def quantize_groups(weight: Array) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """A matrix (out, in) as integers from -8 to 7, int8, and a scale for each group, (out, in / group) fp16.

    A group's largest weight becomes -8, as in ggml's q4_0, because 8 cannot be stored. A smaller scale, with which it
    would be beyond -8 and is cut, is taken if the sum of squared errors is smaller. For the integers found, the scale
    is the one with the smallest error. To quantize the result again changes nothing.
    """
    group = group_size(weight.shape[1])
    groups = weight.reshape(-1, group)
    numbers = np.empty(groups.shape, np.int8)
    scale = np.empty(len(groups), np.float16)
    for start in range(0, len(groups), CHUNK // group):
        part = slice(start, start + CHUNK // group)
        numbers[part], scale[part] = _round_groups(floats(groups[part]))
    return numbers.reshape(weight.shape), scale.reshape(len(weight), -1)


def _round_groups(groups: Floats) -> tuple[Floats, Floats]:
    """Integers (n, group), in fp32, and scales (n,) for groups of weights w (n, group).

    For integers q, the best scale is w.q / q.q. Its squared error is w.w - (w.q)^2 / q.q, so the second term, the
    `gain`, is to be large.
    """
    extreme = np.take_along_axis(groups, np.abs(groups).argmax(axis=1)[:, None], axis=1)
    inverse = np.zeros_like(extreme)
    np.divide(-8, extreme, out=inverse, where=np.abs(extreme) >= _LEAST)
    best, numbers, scale = np.full_like(extreme, -1), np.zeros_like(groups), np.zeros_like(extreme)
    for shrinking in _SHRINKINGS:
        rounded = groups * (inverse / np.float32(shrinking))
        np.rint(rounded, out=rounded)
        np.minimum(np.maximum(rounded, -8, out=rounded), 7, out=rounded)
        product = _dot(groups, rounded)
        fitted = product / np.maximum(_dot(rounded, rounded), 1)
        with np.errstate(over="ignore"):  # an infinite gain is larger than none
            gain = product * fitted
        better = gain > best
        for kept, found in ((best, gain), (scale, fitted), (numbers, rounded)):
            np.copyto(kept, found, where=better)
    largest = np.finfo(np.float16).max
    return numbers, scale[:, 0].clip(-largest, largest)


def _dot(a: Floats, b: Floats) -> Floats:
    """The scalar product of each row of `a` and that of `b`, (n, 1)."""
    products: Floats = np.einsum("ij,ij->i", a, b)[:, None]
    return products


def is_cut(scale: Array) -> bool:
    """Whether a scale of `quantize_groups` was too large for its type, and was replaced by the largest number in it.

    The scales of `quantize_rows`, in fp32, never are.
    """
    return scale.dtype == np.float16 and bool((np.abs(scale) == np.finfo(np.float16).max).any())


def dequantize_groups(numbers: NDArray[np.int8], scale: Array) -> Floats:
    """The matrix (out, in), in fp32, that integers and scales of `quantize_groups` represent."""
    weight = numbers.astype(np.float32)
    groups = weight.reshape(*scale.shape, -1)
    groups *= floats(scale)[:, :, None]
    return weight


def round_weights(weight: Array, precision: str) -> Floats:
    """A block's matrix, in fp32, with the values that it has in `precision`.

    Rows that do not consist of whole groups are in 8 bits where others are in 4. Raises CheckpointError for weights
    that are too large for 4 bits.
    """
    if precision == "int4" and weight.shape[1] % GROUP == 0:
        numbers, groups_scale = quantize_groups(weight)
        refuse_cut(is_cut(groups_scale), weight, precision)
        return dequantize_groups(numbers, groups_scale)
    if precision in ("int8", "int4"):
        numbers, scale = quantize_rows(weight)
        return numbers * scale[:, None]
    with np.errstate(over="ignore"):
        return floats(weight.astype(DTYPES[precision]))


def refuse_cut(cut: bool, weight: Array, precision: str) -> None:
    """Raise CheckpointError if weights were cut at the largest number of a precision, or became infinite in it."""
    if cut and bool(np.isfinite(weight).all()):
        largest = float(np.abs(weight).max())
        raise CheckpointError(f"a weight of {largest:.3g} is too large for {precision}: use --precision fp32")
