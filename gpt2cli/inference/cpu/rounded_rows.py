"""Rounds activations to int16, for products of many rows.

Each segment of a row has a scale, so an outlier costs precision only there. The products of a segment with weights must
add up to less than 2^31. With weights up to LARGEST_WEIGHT, this holds if the absolute values of its activations add up
to 2^18 at most. So their scale follows from their sum, if they are of similar size, or from the largest one, if it is
an outlier.
"""

from typing import Any

from llvmlite import ir

from gpt2cli.inference.cpu import vector_math as vm
from gpt2cli.inference.cpu.compiler.emission import for_range
from gpt2cli.inference.cpu.compiler.functions import emitted, inlined
from gpt2cli.inference.cpu.compiler.values import Array, Value, indexes
from gpt2cli.inference.cpu.llvm_simd import FLOAT, INT, SHORT, MatrixRows, broadcast, constant_vector, index
from gpt2cli.inference.cpu.packed_layout import LARGEST_WEIGHT, SMALLEST
from gpt2cli.inference.cpu.panel_sizes import SEGMENTS
from gpt2cli.inference.cpu.panels import WEIGHTS_PER_WORD, rounded
from gpt2cli.inference.cpu.processor import LANES

LARGEST_ACTIVATION = 32767
"""The largest integer that activations are rounded to."""
LARGEST_SUM = (2**31 - 1) // LARGEST_WEIGHT - 64
"""The largest sum of a segment's activations that are multiplied by rounded weights. Rounding adds less than 64."""


@inlined
def prepare_rows(matrix: Any, x: Any, rows: Any, steps: Any, first: int, last: int) -> None:
    """Round rows first to last - 1 of x (m, in), fp32, to what the weights are multiplied by.

    `rows` (m, in), int16, receives the integers, `steps` (m, in / segment), fp32, what one of them stands for. It is
    not finite if a number of the segment is not. Segments whose numbers are all below SMALLEST become zeros. Does
    nothing for weights in fp32: they are multiplied by x.
    """
    for r in range(first, last):
        _round_row(matrix.weights, x, r, rows, steps)


@emitted
def _round_row(b: Any, weights: Array, x: Array, r: Value, rows: Array, steps: Array) -> None:
    """Round row r of x: see `prepare_rows`."""
    if weights.dtype == "float32":
        return
    [r] = indexes(b, r)
    source, target, sizes = (MatrixRows(b, array, r) for array in (x, rows, steps))
    length = SEGMENTS[weights.dtype.name]
    with for_range(b, index(0), source.width, length) as (at, segment):
        places = [b.add(at, index(n)) for n in range(0, length, LANES)]
        values = [source.load(0, place, FLOAT, LANES) for place in places]
        step, inverse = _scale(b, values, WEIGHTS_PER_WORD[weights.dtype] == 2)
        sizes.store(step, 0, segment)
        for place, value in zip(places, values, strict=True):
            whole = rounded(b, value, broadcast(b, inverse, LANES))
            target.store(b.trunc(whole, ir.VectorType(SHORT, LANES)), 0, place)


def _scale(b: Any, vectors: Any, limit_sum: bool) -> tuple[Any, Any]:
    """What one integer stands for that the vectors of a segment are rounded to, and its inverse."""
    # absolute values compare as their bits do; infinity and NaN are the largest
    bits = [b.bitcast(vector, ir.VectorType(INT, LANES)) for vector in vectors]
    sizes = [b.and_(vector, constant_vector(INT, 0x7FFFFFFF, LANES)) for vector in bits]
    extreme = b.bitcast(vm.total(b, sizes, _larger), FLOAT)
    step = b.fmul(extreme, ir.Constant(FLOAT, 1 / LARGEST_ACTIVATION))
    if limit_sum:
        unit = constant_vector(FLOAT, 1 / LARGEST_SUM, LANES)
        parts = [b.fmul(b.bitcast(size, unit.type), unit) for size in sizes]
        share = vm.total(b, parts)
        step = b.select(b.fcmp_unordered(">", share, step), share, step)
    tiny = b.fcmp_ordered("<", extreme, ir.Constant(FLOAT, float(SMALLEST)))
    return step, b.select(tiny, ir.Constant(FLOAT, 0), b.fdiv(ir.Constant(FLOAT, 1), step))


def _larger(b: Any, first: Any, second: Any) -> Any:
    return b.select(b.icmp_signed(">", first, second), first, second)
