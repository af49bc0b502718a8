"""Products of many rows of activations with weights in 16 or 4 bits, in integers of 16 bits.

With many rows, arithmetic takes the time and not memory. Instructions for pairs of int16 do twice as many products as
those for fp32, so weights and activations are rounded to integers:

    weights       14 bits with the sign, and one scale (`step`) for each output
    activations   15 bits with the sign, and one scale for each SEGMENT of 16, so an outlier costs precision only there

The precision is between those of fp16 and bf16. A panel holds the integers of sixteen outputs, transposed, as
(in / 2, BLOCK_OUTPUTS) pairs: the package's docstring draws it.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core.cgutils import alloca_once, for_range, for_range_slice, get_or_insert_function
from numba.extending import intrinsic

from gpt2cli.inference.cpu.compiling import inlined, parallel
from gpt2cli.inference.cpu.dot_kernels import TASK_ROWS, TILE_ROWS
from gpt2cli.inference.cpu.elementwise import finish, round_rows
from gpt2cli.inference.cpu.llvm_simd import (
    ANY_ORDER,
    FLOAT,
    INDEX,
    INT,
    SHORT,
    WEIGHTS_PER_STEP,
    MatrixRows,
    broadcast,
    index,
    multiply_pairs,
)
from gpt2cli.inference.cpu.packed_layout import BLOCK_OUTPUTS, LARGEST_WEIGHT

LANES = 8
SEGMENT = 16
"""Neighbouring activations that share a scale."""
LARGEST_ACTIVATION = (2**31 - 1) // (SEGMENT * LARGEST_WEIGHT)
"""The largest integer that activations are rounded to. The products of a segment add up to less than 2^31."""


@parallel
def matmul_int16(matrix: Any, x: Any, y: Any, epilogue: int) -> None:
    """As `matmul.matmul`, for many rows x (m, in). m is a multiple of TILE_ROWS.

    A task makes the panel of BLOCK_OUTPUTS outputs and multiplies up to TASK_ROWS rows by it.
    """
    m, width = x.shape
    rows, steps = np.empty((m, width), np.int16), np.empty((m, width // SEGMENT), np.float32)
    for r in prange(m):
        round_rows(x[r].reshape(-1, SEGMENT), LARGEST_ACTIVATION, rows[r].reshape(-1, SEGMENT), steps[r])
    blocks = len(matrix.scale) // BLOCK_OUTPUTS
    for task in prange(-(-m // TASK_ROWS) * blocks):
        start, first = task // blocks * TASK_ROWS, task % blocks * BLOCK_OUTPUTS
        integers, panel = np.empty((BLOCK_OUTPUTS, width), np.int16), np.empty((width // 2, BLOCK_OUTPUTS), np.int32)
        sums = np.empty((TILE_ROWS, BLOCK_OUTPUTS), np.float32)
        _make_panel(matrix, first, integers, panel)
        for r in range(start, min(start + TASK_ROWS, m), TILE_ROWS):
            _multiply_panel(panel, rows, r, steps, sums)
            finish(sums, TILE_ROWS, matrix.step, matrix.bias, y, r, first, epilogue)


@inlined
def _make_panel(matrix: Any, first: int, integers: Any, panel: Any) -> None:
    """Fill the panel of outputs from `first` on. `integers` (BLOCK_OUTPUTS, in), int16, receives it untransposed."""
    for o in range(BLOCK_OUTPUTS):
        _round_weights(matrix.weights, matrix.groups, first + o, matrix.step[first + o], integers[o])
    for k in range(0, len(panel), LANES):
        for o in range(0, BLOCK_OUTPUTS, LANES):
            _transpose_pairs(integers, o, k, panel)


@intrinsic
def _round_weights(typingctx: Any, weights: Any, groups: Any, o: Any, step: Any, out: Any) -> Any:
    """Write row o of the weights, divided by `step` and rounded, to `out` (in,), int16."""
    signature = types.void(weights, groups, o, step, out)

    def emit_round_weights(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        o = context.cast(b, arguments[2], signature.args[2], types.intp)
        held, scales = (MatrixRows(context, b, signature, arguments, i, o) for i in (0, 1))
        target = context.make_array(out)(context, b, arguments[4])
        length = b.extract_value(target.shape, 0)
        with for_range_slice(b, index(0), length, index(WEIGHTS_PER_STEP[weights.dtype]), INDEX) as (at, _):
            scale = scales.group_scale(0, at) if weights.dtype == types.uint8 else ir.Constant(FLOAT, 1)
            for n, value in enumerate(held.weights(0, at)):
                value = _scaled(b, value, b.fdiv(scale, arguments[3]))
                pointer = b.gep(target.data, [b.add(at, index(n * value.type.count))])
                b.store(value, b.bitcast(pointer, value.type.as_pointer()), align=2)
        return context.get_dummy_value()

    return signature, emit_round_weights


def _scaled(b: Any, values: Any, factor: Any) -> Any:
    """A vector of fp32 or int16, times a factor, rounded to int16."""
    real, whole = (ir.VectorType(kind, values.type.count) for kind in (FLOAT, INT))
    if values.type.element == SHORT:
        values = b.sitofp(values, real)
    product = b.fmul(values, broadcast(b, factor, values.type.count))
    nearest = get_or_insert_function(b.module, ir.FunctionType(real, [real]), f"llvm.rint.v{real.count}f32")
    return b.trunc(b.fptosi(b.call(nearest, [product]), whole), ir.VectorType(SHORT, values.type.count))


@intrinsic
def _transpose_pairs(typingctx: Any, integers: Any, o: Any, k: Any, panel: Any) -> Any:
    """Transpose pairs k to k + 7 of rows o to o + 7 of `integers` into rows k to k + 7 of the panel."""
    signature = types.void(integers, o, k, panel)

    def emit_transpose(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        o, k = (context.cast(b, arguments[i], signature.args[i], types.intp) for i in (1, 2))
        source, target = (MatrixRows(context, b, signature, arguments, *at) for at in ((0, o), (3, k)))
        vectors = [source.load(i, b.mul(k, index(2)), INT, LANES) for i in range(LANES)]
        for _ in range(3):  # interleaving the two halves of the vectors three times transposes 8 x 8 elements
            halves = zip(vectors[: LANES // 2], vectors[LANES // 2 :], strict=True)
            vectors = [_interleave(b, upper, lower, side) for upper, lower in halves for side in (0, LANES // 2)]
        for i, vector in enumerate(vectors):
            target.store(vector, i, o)
        return context.get_dummy_value()

    return signature, emit_transpose


@intrinsic
def _multiply_panel(typingctx: Any, panel: Any, x: Any, r: Any, steps: Any, out: Any) -> Any:
    """Write the products of x[r : r + TILE_ROWS] (m, in) and a panel to `out` (TILE_ROWS, BLOCK_OUTPUTS), fp32.

    `steps` (m, in / SEGMENT) are the scales of x. The panel's scales are not applied.
    """
    signature = types.void(panel, x, r, steps, out)

    def emit_products(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        r = context.cast(b, arguments[2], signature.args[2], types.intp)
        firsts = ((0, index(0)), (1, r), (3, r), (4, index(0)))
        weights, activations, sizes, results = (MatrixRows(context, b, signature, arguments, i, at) for i, at in firsts)
        halves = range(0, BLOCK_OUTPUTS, LANES)
        places = [(t, o) for t in range(TILE_ROWS) for o in halves]
        whole, real = ([alloca_once(b, ir.VectorType(kind, LANES)) for _ in places] for kind in (INT, FLOAT))
        _clear(b, real)
        with for_range(b, sizes.width) as segments:
            _clear(b, whole)
            with for_range_slice(b, index(0), index(SEGMENT // 2), index(2), INDEX) as (k, _):
                for pair in (k, b.add(k, index(1))):  # two per iteration, so that the loop's overhead is small
                    at = b.add(b.mul(segments.index, index(SEGMENT // 2)), pair)
                    first, place = b.mul(at, index(BLOCK_OUTPUTS)), b.mul(at, index(2))
                    w = {o: _as_shorts(b, weights.load(0, b.add(first, index(o)), INT, LANES)) for o in halves}
                    xs = [_as_shorts(b, broadcast(b, activations.load(t, place, INT), LANES)) for t in range(TILE_ROWS)]
                    for total, (t, o) in zip(whole, places, strict=True):
                        b.store(b.add(b.load(total), multiply_pairs(b, w[o], xs[t])), total)
            step = [broadcast(b, sizes.load(t, segments.index, FLOAT), LANES) for t in range(TILE_ROWS)]
            for number, total, (t, _) in zip(whole, real, places, strict=True):
                value = b.fmul(b.sitofp(b.load(number), total.type.pointee), step[t], flags=ANY_ORDER)
                b.store(b.fadd(b.load(total), value, flags=ANY_ORDER), total)
        for total, (t, o) in zip(real, places, strict=True):
            results.store(b.load(total), t, index(o))
        return context.get_dummy_value()

    return signature, emit_products


def _as_shorts(b: Any, pairs: Any) -> Any:
    """A vector of pairs as one of int16."""
    return b.bitcast(pairs, ir.VectorType(SHORT, 2 * LANES))


def _interleave(b: Any, first: Any, second: Any, start: int) -> Any:
    """Four elements of each of two vectors, from `start` on, in turn."""
    order = [place for i in range(start, start + LANES // 2) for place in (i, LANES + i)]
    return b.shuffle_vector(first, second, ir.Constant(ir.VectorType(INT, LANES), [ir.Constant(INT, n) for n in order]))


def _clear(b: Any, vectors: Any) -> None:
    for vector in vectors:
        b.store(ir.Constant(vector.type.pointee, None), vector)
