"""The innermost loops of attention, as LLVM instructions: scores, softmax, and weighted sums of values.

`weights` and `queries` are rows in fp32 that lie one after the other in a vector of numbers; `stride` is their
distance. `keys` and `values` (S, D) are in fp32, or in fp16. D is a multiple of LANES. A query's
results are the same to the bit whether it is computed alone or in a tile.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from gpt2cli.inference.cpu import vector_math as vm
from gpt2cli.inference.cpu.attention_tasks import QUERY_TILE
from gpt2cli.inference.cpu.compiler.emission import for_range
from gpt2cli.inference.cpu.compiler.functions import emitted
from gpt2cli.inference.cpu.compiler.values import IN_ORDER, REAL, Array, Number, Value, indexes
from gpt2cli.inference.cpu.llvm_simd import FLOAT, HALF, broadcast, index, shuffle
from gpt2cli.inference.cpu.processor import LANES
from gpt2cli.inference.cpu.vector_math import ZERO

LARGEST_HALF = 65504.0
"""The largest number in fp16."""


@emitted
def scores(
    b: Any, queries: Array, tile: Value, keys: Array, at: Value, n: Value, weights: Array, s: Value, stride: Value
) -> None:
    """Write the dot products of `tile` queries, 1 or QUERY_TILE, and keys[at : at + n] to column s of `weights`.

    n is at least 1. What follows a row's n numbers, up to LANES of them, is overwritten. Of `keys`, only these n are
    read.
    """
    q, k, w = queries.data, keys.data, weights.data
    tile, at, n, s, stride = indexes(b, tile, at, n, s, stride)
    width = keys.sizes[1]
    last = b.sub(n, index(1))

    def emit_tile(n_queries: int) -> None:
        n_keys = LANES // n_queries  # whose products with all queries make up a vector
        # the last step begins earlier than where the one before it ends, or reads the last key several times
        offsets = [b.mul(_smaller(b, index(i), last), width) for i in range(n_keys)]
        latest = b.sub(n, index(n_keys))
        latest = b.select(b.icmp_signed(">", latest, index(0)), latest, index(0))
        with for_range(b, index(0), n, n_keys) as (place, _):
            place = _smaller(b, place, latest)
            first = b.mul(b.add(at, place), width)
            rows = [b.gep(k, [b.add(first, offset)]) for offset in offsets]
            sums = [ZERO] * LANES
            # a single query reads each key from end to end, in the order of addresses, as memory is fastest
            at_once = 64 // LANES if n_queries == 1 else 1
            whole = b.sub(width, b.srem(width, index(at_once * LANES)))
            with vm.Loop(b, index(0), whole, index(at_once * LANES), sums) as loop:
                loop.after(_add_products(b, (q, width), rows, loop, at_once))
            if at_once > 1:
                with vm.Loop(b, whole, width, index(LANES), loop.results) as loop:
                    loop.after(_add_products(b, (q, width), rows, loop, 1))
            sums = vm.sums_of_vectors(b, loop.results)
            for t in range(n_queries):
                target = b.add(b.add(s, place), b.mul(stride, index(t)))
                vm.store(b, shuffle(b, sums, range(t * n_keys, (t + 1) * n_keys)), w, target)

    _one_or_tile(b, tile, emit_tile)


def _add_products(b: Any, queries: tuple[Any, Any], rows: list[Any], loop: vm.Loop, count: int) -> list[Any]:
    """Add the products of all queries, a pointer and their width, and of rows of keys to the sums of the loop.

    Multiplies `count` vectors of each.
    """
    q, width = queries
    places = [b.add(loop.at, index(c * LANES)) for c in range(count)]
    n_queries, n_keys = LANES // len(rows), len(rows)
    starts = [b.mul(width, index(t)) for t in range(n_queries)]
    parts = [[vm.load(b, q, b.add(start, place)) for place in places] for start in starts]
    sums = list(loop.before)
    for i, row in enumerate(rows):
        for c, place in enumerate(places):
            key = vm.load(b, row, place)
            for t in range(n_queries):
                total = t * n_keys + i
                sums[total] = vm.multiply_add(b, parts[t][c], key, sums[total])
    return sums


@emitted
def softmax(b: Any, weights: Array, s: Value, visible: Value, n: Value) -> Number:
    """Replace the scores x at weights[s : s + visible] by e^(x - largest), and those from there to s + n by 0.

    Returns the inverse of their sum, which makes them a softmax. Writes whole vectors.
    """
    s, visible, n = indexes(b, s, visible, n)
    row = b.gep(weights.data, [s])
    lowest = vm.real(ZERO, -3e38)
    with vm.Loop(b, index(0), visible, index(LANES), [lowest]) as loop:
        seen = b.select(vm.in_range(b, loop.at, visible), vm.load(b, row, loop.at), lowest)
        loop.after([vm.maximum(b, seen, loop.before[0])])
    largest = broadcast(b, vm.total(b, loop.results, vm.maximum), LANES)
    with vm.Loop(b, index(0), n, index(LANES), [ZERO]) as loop:
        power = vm.exponential(b, b.fsub(vm.load(b, row, loop.at), largest, flags=IN_ORDER))
        power = b.select(vm.in_range(b, loop.at, visible), power, ZERO)
        vm.store(b, power, row, loop.at)
        loop.after([vm.add(b, loop.before[0], power)])
    return Number(REAL, b.fdiv(ir.Constant(FLOAT, 1), vm.total(b, loop.results), flags=IN_ORDER))


@emitted
def weighted_sums(
    b: Any,
    weights: Array,
    s: Value,
    stride: Value,
    tile: Value,
    values: Array,
    at: Value,
    n: Value,
    out: Array,
    add: Number,
) -> None:
    """weights[:, s : s + n] @ values[at : at + n], for `tile` rows, 1 or QUERY_TILE: written to `out` or added to it.

    `out` (tile * D,) is in fp32.
    """
    w, v, o = weights.data, values.data, out.data
    s, stride, tile, at, n = indexes(b, s, stride, tile, at, n)
    width = values.sizes[1]
    first = b.gep(v, [b.mul(at, width)])

    def emit_columns(rows: int, d: Any, count: int) -> None:
        """Compute `count` vectors of the sums of all rows."""
        ws = [b.gep(w, [b.add(s, b.mul(stride, index(t)))]) for t in range(rows)]
        columns = [b.add(d, index(c * LANES)) for c in range(count)]
        outs = [b.add(column, b.mul(width, index(t))) for t in range(rows) for column in columns]
        before = [b.select(add.llvm, vm.load(b, o, place), ZERO) for place in outs]
        with vm.Loop(b, index(0), n, index(1), before) as loop:
            row = b.gep(first, [b.mul(loop.at, width)])
            parts = [vm.load(b, row, column) for column in columns]
            factors = [broadcast(b, b.load(b.gep(x, [loop.at])), LANES) for x in ws]
            pairs = zip([(f, p) for f in factors for p in parts], loop.before, strict=True)
            loop.after([vm.multiply_add(b, f, p, total) for (f, p), total in pairs])
        for place, total in zip(outs, loop.results, strict=True):
            vm.store(b, total, o, place)

    def emit_tile(rows: int) -> None:
        # as many vectors as the processor's registers hold: 16 registers, or 32 with AVX-512
        at_once = 64 // LANES if rows == 1 else 4 if LANES == 16 else 2
        whole = b.sub(width, b.srem(width, index(at_once * LANES)))
        with for_range(b, index(0), whole, at_once * LANES) as (d, _):
            emit_columns(rows, d, at_once)
        with for_range(b, whole, width, LANES) as (d, _):
            emit_columns(rows, d, 1)

    _one_or_tile(b, tile, emit_tile)


@emitted
def as_stored(b: Any, value: Number, store: Array) -> Number:
    """A number in fp32 as the array `store` holds it: in fp32, or as the bits of fp16.

    Numbers beyond the range of fp16 become its largest finite number.
    """
    if store.dtype == REAL:
        return value
    x = value.llvm
    for sign, bound in ((">", LARGEST_HALF), ("<", -LARGEST_HALF)):
        limit = ir.Constant(FLOAT, bound)
        x = b.select(b.fcmp_ordered(sign, x, limit, flags=IN_ORDER), limit, x)
    return Number(store.dtype, b.fptrunc(x, HALF))


def _smaller(b: Any, x: Any, y: Any) -> Any:
    return b.select(b.icmp_signed("<", x, y), x, y)


def _one_or_tile(b: Any, tile: Any, emit: Callable[[int], None]) -> None:
    """Emit the loop for one query and the loop for a tile, and the choice between them."""
    with b.if_else(b.icmp_signed("==", tile, index(1))) as (one, several):
        with one:
            emit(1)
        with several:
            emit(QUERY_TILE)
