"""Packs a model's weights into the arrays that the compiled loops read. `packed_layout` says how they lie in memory."""

import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpt2cli.config import GPTConfig
from gpt2cli.inference.cpu.huge_pages import Arena
from gpt2cli.inference.cpu.packed_layout import (
    LARGEST_WEIGHT,
    MATRICES,
    SMALLEST,
    Matrix,
    around_precision,
    block_precision,
    matrix_table,
)
from gpt2cli.model.quantization import BF16, GROUP, is_cut, quantize_groups, quantize_rows, refuse_cut

MOST_THREADS = 4
"""Threads that pack a matrix. More would wait for the memory."""
SLICE = 2**17
"""Weights that a thread packs at a time, so that the intermediate results stay in the processor's cache."""
_SMALL_SLICE = 2**14  # of computations with several intermediate results
_BITS_OF_LEAST = np.uint32(0x38800000)  # 2^-14, the least number in fp16 with all its bits
_BITS_OF_2_TO_16 = np.uint32(0x47800000)
_LEAST_ROWS = 64  # of a transposed matrix, in fp32 four lines of the processor's cache
_TILE = 32  # columns of a transposed matrix that are copied at a time

Array = NDArray[Any]


class Source(Protocol):
    """The weights of a model, by their names in GPT's state dict. A matrix is (out, in), in a floating point type."""

    def __getitem__(self, name: str, /) -> Array: ...

    def release(self, name: str, /) -> None:
        """Free the memory of a tensor. It is not used any more."""
        ...


def automatic_precision(stored: str) -> str:
    """What `auto` means for weights that are stored in this precision (`Origin.precision`), on a CPU with kernels.

    int8 for weights in 8 or 4 bits, else fp16, with which perplexity differs by less than 0.01% from that of fp32.
    """
    return "int8" if stored.startswith("int") else "fp16"


def pack_model(
    config: GPTConfig, weights: Source, precision: str, arena: Arena | None = None
) -> Iterator[tuple[str, Array]]:
    """Yields the names and arrays of `packed_table(config, precision)`, in its order. They are allocated in the arena.

    Each tensor of `weights` is released once it is packed. So at most one is in memory beside what was packed, unless
    the source holds more. Raises CheckpointError as `pack_matrix`, and MemoryError.
    """
    arena = arena or Arena()

    def norm(name: str) -> tuple[str, Array]:
        packed = arena.zeros((2, config.n_embd), np.float32)
        for row, field in enumerate(("weight", "bias")):
            packed[row] = weights[f"{name}.{field}"]
            weights.release(f"{name}.{field}")
        return name, packed

    def matrix(name: str, held: str, has_bias: bool) -> Iterator[tuple[str, Array]]:
        bias = weights[f"{name}.bias"] if has_bias else None
        packed = pack_matrix(weights[f"{name}.weight"], bias, held, arena)
        weights.release(f"{name}.weight")
        if has_bias:
            weights.release(f"{name}.bias")
        for field, array in packed._asdict().items():
            yield f"{name}.{field}", array

    held, around = block_precision(precision, config.n_embd), around_precision(precision)
    # the largest tensors come first, when little else is in memory
    yield from matrix("wte", around, False)
    if not config.tied:
        yield from matrix("lm_head", around, False)
    for layer in range(config.n_layer):
        for part, names in (("ln_1", MATRICES[:2]), ("ln_2", MATRICES[2:])):
            yield norm(f"h.{layer}.{part}")
            for name in names:
                yield from matrix(f"h.{layer}.{name}", held, True)
    positions = arena.zeros((config.block_size, config.n_embd), np.float32)
    positions[:] = weights["wpe.weight"]
    weights.release("wpe.weight")
    yield "wpe", positions
    yield norm("ln_f")


def pack_matrix(weight: Array, bias: Array | None, precision: str, arena: Arena | None = None) -> Matrix:
    """A linear layer's weight (out, in) and bias (out,) as a `Matrix`, padded with zeros and allocated in the arena.

    In int4, rows consist of whole groups. Raises CheckpointError for weights that are too large for `precision`, and
    MemoryError.
    """
    arena = arena or Arena()
    outputs, width = weight.shape
    table = matrix_table(outputs, width, precision)
    matrix = Matrix(*(arena.zeros(shape, dtype) for shape, dtype in table.values()))
    matrix.scale[:] = matrix.step[:] = 1
    if bias is not None:
        matrix.bias[:outputs] = bias
    pack = {"fp32": _pack_fp32, "fp16": _pack_fp16, "bf16": _pack_bf16, "int8": _pack_int8, "int4": _pack_int4}[
        precision
    ]
    cut = _for_rows(outputs, max(_LEAST_ROWS, SLICE // width), lambda rows: pack(weight[rows], matrix, rows))
    refuse_cut(cut, weight, precision)
    return matrix


def _for_rows(outputs: int, step: int, pack: Callable[[slice], bool]) -> bool:
    """Call `pack` for slices of `step` rows, in several threads. Returns whether one of the calls returned True.

    NumPy lets other threads run while it computes. The slices are small enough for the processor's cache.
    """
    slices = [slice(start, min(start + step, outputs)) for start in range(0, outputs, step)]
    threads = min(MOST_THREADS, len(slices), os.cpu_count() or 1)
    if threads == 1:
        return sum(map(pack, slices)) > 0
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(pack, slices)) > 0


def _pack_fp32(weight: Array, matrix: Matrix, rows: slice) -> bool:
    matrix.weights[rows, : weight.shape[1]] = _contiguous(weight)
    return False


def _pack_fp16(weight: Array, matrix: Matrix, rows: slice) -> bool:
    part = _contiguous(weight)
    bits = part.view(np.uint16) if part.dtype == np.float16 else _fp16_bits(part.astype(np.float32, copy=False))
    return _pack_16_bits(bits, np.dtype(np.float16), matrix, rows)


def _pack_bf16(weight: Array, matrix: Matrix, rows: slice) -> bool:
    part = _contiguous(weight)
    if part.dtype != BF16:
        part = part.astype(np.float32, copy=False).astype(BF16)
    return _pack_16_bits(part.view(np.uint16), BF16, matrix, rows)


def _pack_16_bits(bits: Array, dtype: "np.dtype[Any]", matrix: Matrix, rows: slice) -> bool:
    """Returns whether a weight is not finite in this type."""
    matrix.weights[rows, : bits.shape[1]] = bits.view(matrix.weights.dtype)
    # without the sign, the order of the bits is that of the numbers; infinity and NaN are above all
    largest = (bits & np.uint16(0x7FFF)).max(axis=1).view(dtype).astype(np.float32)
    matrix.step[rows] = _step(largest)
    return not bool(np.isfinite(largest).all())


def _fp16_bits(part: Array) -> Array:
    """Numbers in fp32 as the bits of the nearest numbers in fp16. Three times as fast as NumPy's conversion."""
    flat = part.reshape(-1)
    bits = np.empty(len(flat), np.uint16)
    for start in range(0, len(flat), _SMALL_SLICE):
        bits[start : start + _SMALL_SLICE] = _few_fp16_bits(flat[start : start + _SMALL_SLICE])
    return bits.reshape(part.shape)


def _few_fp16_bits(part: Array) -> Array:
    """As `_fp16_bits`, possibly in 32 bits.

    The processor rounds a number with the exponent e, at least -14, to 10 bits of fraction, when it adds 2^(e + 13).
    """
    bits = part.view(np.uint32)
    total = bits & np.uint32(0x7FFFFFFF)
    if total.max() >= _BITS_OF_2_TO_16:
        with np.errstate(over="ignore"):  # a number that is too large becomes infinite, which is refused
            return part.astype(np.float16).view(np.uint16)
    exponent = np.maximum(total, _BITS_OF_LEAST)
    exponent &= np.uint32(0x7F800000)
    magic = exponent + np.uint32(13 << 23)
    rounded = total.view(np.float32)  # the same memory
    rounded += magic.view(np.float32)
    total -= magic
    exponent -= _BITS_OF_LEAST
    exponent >>= np.uint32(13)
    total += exponent
    total |= bits >> np.uint32(16) & np.uint32(0x8000)  # the sign
    return np.asarray(total)


def _pack_int8(weight: Array, matrix: Matrix, rows: slice) -> bool:
    numbers, scale = quantize_rows(_contiguous(weight))
    matrix.weights[rows, : weight.shape[1]] = numbers
    matrix.scale[rows] = scale
    return False


def _pack_int4(weight: Array, matrix: Matrix, rows: slice) -> bool:
    """Returns whether a scale is too large for its type."""
    numbers, scale = quantize_groups(_contiguous(weight))
    n, width = numbers.shape
    matrix.groups[rows, : scale.shape[1]] = scale.view(np.uint16)
    halves = (numbers + np.int8(8)).view(np.uint8).reshape(n, -1, 2, GROUP // 2)
    matrix.weights[rows, : width // 2] = (halves[:, :, 0] | halves[:, :, 1] << np.uint8(4)).reshape(n, -1)
    units = scale.astype(np.float32) * np.float32(8)
    matrix.step[rows] = _step(np.maximum(units.max(axis=1), -units.min(axis=1)))
    return is_cut(scale)


def _step(largest: Array) -> Array:
    """The scale with which products of many rows round rows with these largest weights. Infinity and NaN stay."""
    steps = largest / np.float32(LARGEST_WEIGHT)
    return np.asarray(np.where(steps < SMALLEST, np.float32(1), steps))


def _contiguous(part: Array) -> Array:
    """Rows of a matrix, one after the other. The rows of a transposed matrix are copied a few columns at a time."""
    if part.flags.c_contiguous:
        return part
    copy = np.empty(part.shape, part.dtype)
    for start in range(0, part.shape[1], _TILE):
        copy[:, start : start + _TILE] = part[:, start : start + _TILE]
    return copy
