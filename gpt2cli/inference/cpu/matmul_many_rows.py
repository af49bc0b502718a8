"""Products of many rows of activations (sequences of 32 tokens or more), with panels of weights.

With many rows, arithmetic takes the time and not memory. Instructions for pairs of int16 do twice as many products as
those for fp32, so all weights but those in fp32 are multiplied as integers. Activations are rounded to integers, with
one scale for each segment of a row, so an outlier costs precision only there:

                    weights                            activations              segment
    fp16, bf16      rounded to 14 bits with the sign   16 bits with the sign    32
    int8            as they are                        16 bits with the sign    64
    int4            as they are                        16 bits with the sign    32, a group of the weights
    fp32            as they are                        as they are              none

The precision for fp16 and bf16 is between that of fp16 and that of bf16. `panels` makes the panels, `rounded_rows` the
integers of activations.
"""

from typing import Any

import numpy as np
from llvmlite import ir

from gpt2cli.inference.cpu.compiler.emission import for_range, variable
from gpt2cli.inference.cpu.compiler.functions import emitted, inlined
from gpt2cli.inference.cpu.compiler.values import IN_ORDER, Array, Value, indexes
from gpt2cli.inference.cpu.epilogue import finish
from gpt2cli.inference.cpu.llvm_simd import (
    FLOAT,
    INT,
    SHORT,
    MatrixRows,
    broadcast,
    index,
    multiply_pairs,
)
from gpt2cli.inference.cpu.packed_layout import BLOCK_OUTPUTS
from gpt2cli.inference.cpu.panel_sizes import PANEL_OUTPUTS, PANEL_ROWS, SCALES_START, SEGMENTS, SUMS_START
from gpt2cli.inference.cpu.panels import WEIGHTS_PER_WORD, fill_panel, fill_scales, prefetch_weights
from gpt2cli.inference.cpu.processor import LANES

TILE = 8 if LANES == 16 else 4
"""Rows of activations that a loop multiplies by a panel. Their sums fit into the registers: AVX-512 has 32, AVX2 16."""


@inlined
def multiply_many_rows(
    matrix: Any, x: Any, steps: Any, y: Any, epilogue: int, first: int, last: int, scratch: Any
) -> None:
    """Write outputs first to last - 1 (multiples of BLOCK_OUTPUTS) of the products of x and a matrix to y (m, out).

    x (m, in) and `steps` are what `prepare_rows` has written, or x itself for weights in fp32. m is a multiple of
    MANY_ROWS_MULTIPLE. `scratch` (n, BLOCK_OUTPUTS), fp32, with `scratch_size(m)` numbers or more, is a thread's own.
    """
    m, width = x.shape
    length = panel_width(matrix.weights)
    for block in range(first, last, PANEL_OUTPUTS):
        outputs = min(PANEL_OUTPUTS, last - block)
        for start in range(0, width, length):
            end = min(start + length, width)
            for v in range(0, outputs, LANES):
                fill_panel(matrix.weights, matrix.step, block + v, start, end, scratch, v)
                fill_scales(matrix.weights, matrix.groups, block + v, start, end, scratch, v)
            # the weights of the next panel are read during the multiplications
            block_after, start_after = (block, end) if end < width else (block + PANEL_OUTPUTS, 0)
            end_after = min(start_after + length, width)
            for r in range(0, m, TILE):
                for o in range(PANEL_OUTPUTS * r // m, PANEL_OUTPUTS * (r + TILE) // m):
                    if block_after + o < last:
                        prefetch_weights(matrix.weights, block_after + o, start_after, end_after)
                _multiply_panel(matrix.weights, x, steps, r, start, end, m, scratch)
                if end == width:  # not after the loop: so writing overlaps with the next multiplications
                    for n in range(outputs // BLOCK_OUTPUTS):
                        at, o = SUMS_START // BLOCK_OUTPUTS + n * m + r, block + n * BLOCK_OUTPUTS
                        finish(scratch[at : at + TILE], TILE, factors(matrix), matrix.bias, y, r, o, epilogue)


@inlined
def panel_width(weights: Any) -> int:
    """Weights of one output in a panel."""
    return PANEL_ROWS if weights.dtype == np.float32 else 2 * PANEL_ROWS


@inlined
def factors(matrix: Any) -> Any:
    """What the sums of each output must be multiplied by."""
    return matrix.step if WEIGHTS_PER_WORD[matrix.weights.dtype] == 2 else matrix.scale


@emitted
def _multiply_panel(
    b: Any, weights: Array, x: Array, steps: Array, r: Value, start: Value, end: Value, m: Value, scratch: Array
) -> None:
    """Add the products of x[r : r + TILE, start : end] and the panel to the sums in `scratch`; if start is 0, set them.

    `weights` only says which type the panel was made from.
    """
    r, start, end, m = indexes(b, r, start, end, m)
    rows, sizes, memory = MatrixRows(b, x, r), MatrixRows(b, steps, r), MatrixRows(b, scratch, index(0))
    loop = _PanelLoop(b, weights.dtype, rows, sizes, memory)
    for (t, v), total in zip(loop.places, loop.emit(start, end), strict=True):
        row = b.add(b.add(r, index(t)), b.mul(m, index(v // BLOCK_OUTPUTS)))
        place = b.add(b.mul(row, index(BLOCK_OUTPUTS)), index(SUMS_START + v % BLOCK_OUTPUTS))
        before = b.select(b.icmp_signed("==", start, index(0)), _zeros(total), memory.load(0, place, FLOAT, LANES))
        memory.store(b.fadd(before, total), 0, place)


class _PanelLoop:
    """Emits the loop over the rows of a panel, for TILE rows of activations."""

    places = tuple((t, v) for t in range(TILE) for v in range(0, PANEL_OUTPUTS, LANES))
    """For each sum, the row of the tile and the first output of the panel."""

    def __init__(self, b: Any, dtype: Any, rows: MatrixRows, sizes: MatrixRows, memory: MatrixRows) -> None:
        self.b, self.dtype, self.rows, self.sizes, self.memory = b, dtype, rows, sizes, memory

    def emit(self, start: Any, end: Any) -> list[Any]:
        """Emit the loop. Returns the products, one vector for each of `places`."""
        b = self.b
        real = [variable(b, ir.VectorType(FLOAT, LANES)) for _ in self.places]
        _clear(b, real)
        if self.dtype == "float32":
            with for_range(b, index(0), b.sub(end, start), 2) as (k, _):
                for row in (k, b.add(k, index(1))):
                    self._add_floats(real, row, b.add(start, row))
            return [b.load(total) for total in real]
        length = SEGMENTS[self.dtype.name]
        first, last = (b.udiv(place, index(length)) for place in (start, end))
        whole = [variable(b, ir.VectorType(INT, LANES)) for _ in self.places]
        with for_range(b, index(0), b.sub(last, first), 1) as (number, _):
            _clear(b, whole)
            with for_range(b, index(0), index(length // 2), 2) as (k, _):
                for pair in (k, b.add(k, index(1))):  # two per iteration, so that the loop's overhead is small
                    row = b.add(b.mul(number, index(length // 2)), pair)
                    self._add_pairs(whole, row, b.add(start, b.mul(row, index(2))))
            self._add_segment(real, whole, b.add(first, number), number)
        return [b.load(total) for total in real]

    def _panel(self, row: Any, kind: Any) -> dict[int, Any]:
        """A row of the panel, as vectors by their first output."""
        b = self.b
        starts = {v: b.add(b.mul(row, index(PANEL_OUTPUTS)), index(v)) for v in range(0, PANEL_OUTPUTS, LANES)}
        return {v: self.memory.load(0, place, kind, LANES) for v, place in starts.items()}

    def _add_floats(self, sums: Any, row: Any, place: Any) -> None:
        b, w = self.b, self._panel(row, FLOAT)
        xs = [broadcast(b, self.rows.load(t, place, FLOAT), LANES) for t in range(TILE)]
        for total, (t, v) in zip(sums, self.places, strict=True):
            product = b.fmul(w[v], xs[t], flags=IN_ORDER)
            b.store(b.fadd(b.load(total), product, flags=IN_ORDER), total)

    def _add_pairs(self, sums: Any, row: Any, place: Any) -> None:
        b, shorts = self.b, ir.VectorType(SHORT, 2 * LANES)
        w = {v: b.bitcast(pairs, shorts) for v, pairs in self._panel(row, INT).items()}
        xs = [b.bitcast(broadcast(b, self.rows.load(t, place, INT), LANES), shorts) for t in range(TILE)]
        for total, (t, v) in zip(sums, self.places, strict=True):
            b.store(b.add(b.load(total), multiply_pairs(b, w[v], xs[t])), total)

    def _add_segment(self, real: Any, whole: Any, segment: Any, group: Any) -> None:
        """Scale the integers of a segment and add them to the sums in fp32."""
        b, vector = self.b, ir.VectorType(FLOAT, LANES)
        step = [broadcast(b, self.sizes.load(t, segment, FLOAT), LANES) for t in range(TILE)]
        places = {v: b.add(b.mul(group, index(PANEL_OUTPUTS)), index(SCALES_START + v)) for _, v in self.places}
        for total, number, (t, v) in zip(real, whole, self.places, strict=True):
            factor = step[t]
            if self.dtype == "uint8":
                factor = b.fmul(factor, self.memory.load(0, places[v], FLOAT, LANES))
            value = b.fmul(b.sitofp(b.load(number), vector), factor, flags=IN_ORDER)
            b.store(b.fadd(b.load(total), value, flags=IN_ORDER), total)


def _zeros(vector: Any) -> Any:
    return ir.Constant(vector.type, None)


def _clear(b: Any, vectors: Any) -> None:
    for vector in vectors:
        b.store(ir.Constant(vector.type.pointee, None), vector)
