"""Makes panels: the weights of some outputs, transposed, as products of many rows read them.

The package's docstring draws a panel. `scratch` (n, BLOCK_OUTPUTS), fp32, is the memory of one thread. It holds

    the panel   PANEL_ROWS rows of PANEL_OUTPUTS pairs of int16, or of weights in fp32
    scales      of up to PANEL_GROUPS groups of int4, with PANEL_OUTPUTS numbers each
    sums        the products so far: all rows of the first BLOCK_OUTPUTS outputs, then those of the next outputs
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from gpt2cli.inference.cpu.compiler.emission import for_range
from gpt2cli.inference.cpu.compiler.functions import emitted
from gpt2cli.inference.cpu.compiler.values import IN_ORDER, Array, Value, indexes
from gpt2cli.inference.cpu.llvm_simd import (
    BYTE,
    CACHE_LINE,
    FLOAT,
    HALF,
    INT,
    SHORT,
    MatrixRows,
    broadcast,
    constant_vector,
    index,
    prefetch,
    shuffle,
)
from gpt2cli.inference.cpu.panel_sizes import PANEL_OUTPUTS, SCALES_START
from gpt2cli.inference.cpu.processor import LANES
from gpt2cli.model.quantization import GROUP

WEIGHTS_PER_WORD = {
    np.dtype("float32"): 1,
    np.dtype("uint16"): 2,
    np.dtype("int16"): 2,
    np.dtype("int8"): 4,
    np.dtype("uint8"): 8,
}
"""Weights in 32 bits of a row, by the type of the array. Those of 16 bits become int16 before they are transposed."""
ROUNDER = 3 * 2.0**22
"""Adding this rounds a number and puts the integer into the lower bits, as fp32 has no bits left for fractions."""


@emitted
def fill_panel(
    b: Any, weights: Array, step: Array, o: Value, start: Value, end: Value, scratch: Array, v: Value
) -> None:
    """Write columns start to end - 1 of rows o to o + LANES - 1 of the weights to the panel, as its outputs from v on.

    start and end are multiples of WIDTH_MULTIPLE. Weights in fp16 and bf16 are divided by `step` (out,) and rounded.
    """
    o, start, end, v = indexes(b, o, start, end, v)
    source, panel = MatrixRows(b, weights, o), MatrixRows(b, scratch, index(0))
    per_word, factors = WEIGHTS_PER_WORD[weights.dtype], [None] * LANES
    if per_word == 2:
        steps = b.gep(step.data, [o])
        inverses = (b.fdiv(ir.Constant(FLOAT, 1), b.load(b.gep(steps, [index(i)]))) for i in range(LANES))
        factors = [broadcast(b, inverse, LANES) for inverse in inverses]
    with for_range(b, start, end, LANES * per_word) as (at, _):
        words = [_words(b, source, i, at, end, factor) for i, factor in enumerate(factors)]
        row = b.lshr(b.sub(at, start), index(min(per_word, 2) - 1))
        for i, vector in enumerate(_transposed(b, words)):
            for k, pairs in _panel_rows(b, per_word, i, vector):
                panel.store(pairs, 0, b.add(b.mul(b.add(row, index(k)), index(PANEL_OUTPUTS)), v))


@emitted
def fill_scales(
    b: Any, weights: Array, groups: Array, o: Value, start: Value, end: Value, scratch: Array, v: Value
) -> None:
    """As `fill_panel`, for the scales of int4's groups. Does nothing for other weights."""
    if weights.dtype == "uint8":
        o, start, end, v = indexes(b, o, start, end, v)
        source, scales = MatrixRows(b, groups, o), MatrixRows(b, scratch, index(0))
        with for_range(b, start, end, GROUP) as (at, group):
            halves = ir.Constant(ir.VectorType(SHORT, LANES), ir.Undefined)
            for i in range(LANES):
                scale = source.load(i, b.lshr(at, index(GROUP.bit_length() - 1)), SHORT)
                halves = b.insert_element(halves, scale, ir.Constant(INT, i))
            values = b.fpext(b.bitcast(halves, ir.VectorType(HALF, LANES)), ir.VectorType(FLOAT, LANES))
            place = b.add(b.mul(group, index(PANEL_OUTPUTS)), v)
            scales.store(values, 0, b.add(place, index(SCALES_START)))


@emitted
def prefetch_weights(b: Any, weights: Array, o: Value, start: Value, end: Value) -> None:
    """Ask the processor to read columns start to end - 1 of row o of the weights into its second cache."""
    o, start, end = indexes(b, o, start, end)
    source, line = MatrixRows(b, weights, o), CACHE_LINE * WEIGHTS_PER_WORD[weights.dtype] // 4
    with for_range(b, start, end, line) as (at, _):
        place = b.lshr(at, index(1)) if weights.dtype == "uint8" else at
        prefetch(b, source.pointer(0, place, BYTE))


def rounded(b: Any, values: Any, factor: Any) -> Any:
    """A vector of fp32 times another one, rounded to int16, in the lower halves of int32."""
    count = values.type.count
    product = b.fmul(values, factor, flags=IN_ORDER)
    moved = b.fadd(product, constant_vector(FLOAT, ROUNDER, count), flags=IN_ORDER)
    return b.bitcast(moved, ir.VectorType(INT, count))


def _words(b: Any, source: MatrixRows, row: int, at: Any, end: Any, factor: Any) -> Any:
    """LANES words of 32 bits of a row, from weight `at` on. Words beyond the weight `end` are undefined."""
    words = ir.VectorType(INT, LANES)
    if source.dtype in ("float32", "int8"):
        return source.load(row, at, INT, LANES)
    if source.dtype == "uint8":
        return _int4_words(b, source, row, at, end)
    parts = [source.weights(row, b.add(at, index(n)))[0] for n in (0, LANES)]
    first, second = (b.bitcast(rounded(b, part, factor), ir.VectorType(SHORT, 2 * LANES)) for part in parts)
    return b.bitcast(shuffle(b, first, range(0, 4 * LANES, 2), second), words)


def _int4_words(b: Any, source: MatrixRows, row: int, at: Any, end: Any) -> Any:
    """As `_words`. The row may end in the middle of the vector, so half of it is read twice instead."""
    place, half = b.lshr(at, index(1)), LANES // 2
    if LANES == 8:
        return source.load(row, place, INT, LANES)
    there = b.icmp_signed("<", b.add(at, index(8 * half)), end)
    lower = source.load(row, place, INT, half)
    upper = source.load(row, b.select(there, b.add(place, index(4 * half)), place), INT, half)
    return shuffle(b, lower, range(LANES), upper)


def _panel_rows(b: Any, per_word: int, i: int, words: Any) -> Iterator[tuple[int, Any]]:
    """The panel's rows, with their numbers, that the words number i of LANES outputs become."""
    if per_word <= 2:
        yield i, words
        return
    if per_word == 4:
        yield from enumerate(_pairs_of_bytes(b, words), start=2 * i)
        return
    group, word = divmod(i, GROUP // 8)
    for side in (0, 1):  # the lower four bits hold the first half of a group
        nibbles = b.and_(b.lshr(words, constant_vector(INT, 4 * side, LANES)), constant_vector(INT, 0x0F0F0F0F, LANES))
        moved = b.sub(b.bitcast(nibbles, ir.VectorType(BYTE, 4 * LANES)), constant_vector(BYTE, 8, 4 * LANES))
        first = GROUP // 2 * group + GROUP // 4 * side + 2 * word
        yield from enumerate(_pairs_of_bytes(b, moved), start=first)


def _pairs_of_bytes(b: Any, words: Any) -> list[Any]:
    """Words of four int8 as two vectors of pairs of int16: the first two numbers of each, and the last two."""
    numbers = b.bitcast(words, ir.VectorType(BYTE, 4 * LANES))
    pairs = []
    for first in (0, 2):
        twice = [4 * lane + first + n for lane in range(LANES) for n in (0, 0, 1, 1)]
        shorts = b.bitcast(shuffle(b, numbers, twice), ir.VectorType(SHORT, 2 * LANES))
        extended = b.ashr(shorts, constant_vector(SHORT, 8, 2 * LANES))
        pairs.append(b.bitcast(extended, ir.VectorType(INT, LANES)))
    return pairs


def _transposed(b: Any, vectors: Sequence[Any]) -> Sequence[Any]:
    """Transpose LANES vectors of LANES words. Interleaving their two halves log2(LANES) times does it."""
    half = LANES // 2
    orders = [[place for n in range(side, side + half) for place in (n, LANES + n)] for side in (0, half)]
    for _ in range(LANES.bit_length() - 1):
        halves = zip(vectors[:half], vectors[half:], strict=True)
        vectors = [shuffle(b, upper, order, lower) for upper, lower in halves for order in orders]
    return vectors
