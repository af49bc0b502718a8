"""Products of weights in 16 or 4 bits with many rows of activations: in whole numbers of 16 bits.

Where many rows share the reading of weights, what takes the time is to multiply, and instructions for pairs of int16 do
twice as many products as those for fp32. So sixteen rows of weights at a time become a panel of whole numbers, and
activations too: weights in 13 bits and a sign, by a step for each row, and activations in 14 and a sign, by a step for
each segment, so that what stands out coarsens few others. That is between fp16 and bf16 in precision.

Numbers lie in pairs, neighbours in a row: a panel (in / 2, OUTS), of pairs, has those of its sixteen rows side by side.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core.cgutils import alloca_once, for_range, for_range_slice, get_or_insert_function
from numba.extending import intrinsic

from gpt2cli.inference.cpu.compiling import inlined, parallel
from gpt2cli.inference.cpu.dot_kernels import CHUNK, OUTS, ROWS
from gpt2cli.inference.cpu.elementwise import finish, round_rows
from gpt2cli.inference.cpu.llvm_simd import (
    ANY_ORDER,
    FLOAT,
    INT,
    LANES,
    SHORT,
    SIZE,
    TAKEN,
    Rows,
    multiply_pairs,
    size,
    spread,
)

SEGMENT = 16
"""Activations that have a step in common."""
LARGEST = 8191
"""The largest of the whole numbers that weights become."""
LARGEST_ACTIVATION = (2**31 - 1) // (SEGMENT * LARGEST)
"""The largest of those that activations become: no sum of a segment's products overflows."""


@parallel
def product_by_panels(matrix: Any, x: Any, y: Any, then: int) -> None:
    """What `products.product` does, for rows x (m, in) that are many: m is a multiple of ROWS."""
    m, width = x.shape
    rows, steps = np.empty((m, width), np.int16), np.empty((m, width // SEGMENT), np.float32)
    for r in prange(m):
        round_rows(x[r].reshape(-1, SEGMENT), LARGEST_ACTIVATION, rows[r].reshape(-1, SEGMENT), steps[r])
    blocks = len(matrix.scale) // OUTS
    for task in prange(-(-m // CHUNK) * blocks):
        start, first = task // blocks * CHUNK, task % blocks * OUTS
        numbers, panel = np.empty((OUTS, width), np.int16), np.empty((width // 2, OUTS), np.int32)
        sums = np.empty((ROWS, OUTS), np.float32)
        _fill(matrix, first, numbers, panel)
        for r in range(start, min(start + CHUNK, m), ROWS):
            _multiply(panel, rows, r, steps, sums)
            finish(sums, ROWS, matrix.step, matrix.bias, y, r, first, then)


@inlined
def _fill(matrix: Any, first: int, numbers: Any, panel: Any) -> None:
    """Make a panel of rows of weights from `first` on, by way of whole numbers (OUTS, in), int16."""
    for o in range(OUTS):
        _whole_numbers(matrix.weights, matrix.groups, first + o, matrix.step[first + o], numbers[o])
    for k in range(0, len(panel), LANES):
        for o in range(0, OUTS, LANES):
            _transpose(numbers, o, k, panel)


@intrinsic
def _whole_numbers(typingctx: Any, weights: Any, groups: Any, o: Any, step: Any, out: Any) -> Any:
    """Row o of the weights in units of `step`, fp32, into `out` (in,), int16."""
    signature = types.void(weights, groups, o, step, out)

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        o = context.cast(b, arguments[2], signature.args[2], types.intp)
        held, scales = (Rows(context, b, signature, arguments, i, o) for i in (0, 1))
        target = context.make_array(out)(context, b, arguments[4])
        length = b.extract_value(target.shape, 0)
        with for_range_slice(b, size(0), length, size(TAKEN[weights.dtype]), SIZE) as (at, _):
            scale = scales.group_scale(0, at) if weights.dtype == types.uint8 else ir.Constant(FLOAT, 1)
            for n, value in enumerate(held.weights(0, at)):
                value = _in_units(b, value, b.fdiv(scale, arguments[3]))
                pointer = b.gep(target.data, [b.add(at, size(n * value.type.count))])
                b.store(value, b.bitcast(pointer, value.type.as_pointer()), align=2)
        return context.get_dummy_value()

    return signature, generate


def _in_units(b: Any, values: Any, factor: Any) -> Any:
    """Values, fp32 or int16, times a factor, in int16."""
    real, whole = (ir.VectorType(kind, values.type.count) for kind in (FLOAT, INT))
    if values.type.element == SHORT:
        values = b.sitofp(values, real)
    product = b.fmul(values, spread(b, factor, values.type.count))
    nearest = get_or_insert_function(b.module, ir.FunctionType(real, [real]), f"llvm.rint.v{real.count}f32")
    return b.trunc(b.fptosi(b.call(nearest, [product]), whole), ir.VectorType(SHORT, values.type.count))


@intrinsic
def _transpose(typingctx: Any, numbers: Any, o: Any, k: Any, panel: Any) -> Any:
    """Eight pairs from the k-th on of eight rows of `numbers` from o on, into rows of the panel from k on."""
    signature = types.void(numbers, o, k, panel)

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        o, k = (context.cast(b, arguments[i], signature.args[i], types.intp) for i in (1, 2))
        source, target = Rows(context, b, signature, arguments, 0, o), Rows(context, b, signature, arguments, 3, k)
        vectors = [source.load(i, b.mul(k, size(2)), INT, LANES) for i in range(LANES)]
        for _ in range(3):  # taking turns between the halves, three times, puts eight times eight in the other order
            halves = zip(vectors[: LANES // 2], vectors[LANES // 2 :], strict=True)
            vectors = [_alternate(b, upper, lower, side) for upper, lower in halves for side in (0, LANES // 2)]
        for i, vector in enumerate(vectors):
            target.store(vector, i, o)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _multiply(typingctx: Any, panel: Any, x: Any, r: Any, steps: Any, out: Any) -> Any:
    """The dot products of the panel's rows of weights with x[r : r + ROWS] (m, in), into `out` (ROWS, OUTS), fp32.

    `steps` (m, in / SEGMENT) are those of x.
    """
    signature = types.void(panel, x, r, steps, out)

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        r = context.cast(b, arguments[2], signature.args[2], types.intp)
        firsts = ((0, size(0)), (1, r), (3, r), (4, size(0)))
        weights, activations, sizes, results = (Rows(context, b, signature, arguments, i, at) for i, at in firsts)
        places = [(t, o) for t in range(ROWS) for o in range(0, OUTS, LANES)]
        whole, real = ([alloca_once(b, ir.VectorType(kind, LANES)) for _ in places] for kind in (INT, FLOAT))
        _clear(b, real)
        with for_range(b, sizes.width) as segments:
            _clear(b, whole)
            with for_range_slice(b, size(0), size(SEGMENT // 2), size(2), SIZE) as (k, _):
                for pair in (k, b.add(k, size(1))):  # two at a turn: a loop's own work is then small beside theirs
                    at = b.add(b.mul(segments.index, size(SEGMENT // 2)), pair)
                    first, place = b.mul(at, size(OUTS)), b.mul(at, size(2))
                    w = {
                        o: _shorts(b, weights.load(0, b.add(first, size(o)), INT, LANES)) for o in range(0, OUTS, LANES)
                    }
                    xs = [_shorts(b, spread(b, activations.load(t, place, INT), LANES)) for t in range(ROWS)]
                    for total, (t, o) in zip(whole, places, strict=True):
                        b.store(b.add(b.load(total), multiply_pairs(b, w[o], xs[t])), total)
            step = [spread(b, sizes.load(t, segments.index, FLOAT), LANES) for t in range(ROWS)]
            for number, total, (t, _) in zip(whole, real, places, strict=True):
                value = b.fmul(b.sitofp(b.load(number), total.type.pointee), step[t], flags=ANY_ORDER)
                b.store(b.fadd(b.load(total), value, flags=ANY_ORDER), total)
        for total, (t, o) in zip(real, places, strict=True):
            results.store(b.load(total), t, size(o))
        return context.get_dummy_value()

    return signature, generate


def _shorts(b: Any, pairs: Any) -> Any:
    return b.bitcast(pairs, ir.VectorType(SHORT, 2 * LANES))


def _alternate(b: Any, first: Any, second: Any, start: int) -> Any:
    """Half a vector from `start` on, of two in turn."""
    order = [place for i in range(start, start + LANES // 2) for place in (i, LANES + i)]
    return b.shuffle_vector(first, second, ir.Constant(ir.VectorType(INT, LANES), [ir.Constant(INT, n) for n in order]))


def _clear(b: Any, vectors: Any) -> None:
    for vector in vectors:
        b.store(ir.Constant(vector.type.pointee, None), vector)
