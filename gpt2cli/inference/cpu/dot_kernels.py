"""The innermost loop of a matrix product: dot products of a few rows of weights with a few rows of activations.

It is written in LLVM's language, with `vectors.py`, because this is where the time goes: Numba's own loops over whole
numbers do not become the instructions that multiply and add sixteen of them at once.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import for_range_slice
from numba.core.errors import TypingError
from numba.extending import intrinsic

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
    pick,
    size,
    spread,
)

STRIDE = 64
"""Rows of weights and of activations are as long as a multiple of this."""
OUTS = 16
"""Rows of weights come in a multiple of this."""
ROWS = 4
"""Rows of activations come in a multiple of this, or alone."""
CHUNK = 128
"""Rows of activations that are multiplied before going on in the weights: what the processor's cache holds."""


@intrinsic
def tile(typingctx: Any, weights: Any, groups: Any, i: Any, x: Any, r: Any, outs: Any, rows: Any) -> Any:
    """The dot products of weights[i : i + outs] with x[r : r + rows], fp32, in a tuple, those of weights[i] first.

    `weights` (out, in), `groups` (out, in / GROUP) for int4, and `x` (rows, in) are contiguous; `outs` and `rows` are
    literal. All are read past no end.
    """
    if weights.dtype not in TAKEN or not isinstance(outs, types.IntegerLiteral):
        raise TypingError("tile takes weights of the types in vectors.py, and literal sizes")
    n_outs, n_rows = outs.literal_value, rows.literal_value
    signature = types.UniTuple(types.float32, n_outs * n_rows)(weights, groups, i, x, r, outs, rows)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        i, r = (context.cast(builder, arguments[at], signature.args[at], types.intp) for at in (2, 4))
        parts = (Rows(context, builder, signature, arguments, at, row) for at, row in ((0, i), (1, i), (3, r)))
        sums = _Loop(builder, *parts).run(n_outs, n_rows)
        return context.make_tuple(builder, signature.return_type, sums)

    return signature, generate


@intrinsic
def mix(typingctx: Any, shares: Any, s: Any, values: Any, at: Any, n: Any, out: Any, add: Any) -> Any:
    """shares[:, s : s + n] times values[at : at + n]: into `out`, or added to it.

    `shares` (ROWS, S), `values` (S', D) and `out` (ROWS, D) are contiguous, in fp32, with D a multiple of LANES.
    """
    signature = types.void(shares, s, values, at, n, out, add)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        b, vector = builder, ir.VectorType(FLOAT, LANES)
        arrays = [context.make_array(signature.args[i])(context, b, arguments[i]) for i in (0, 2, 5)]
        first, place, n = (context.cast(b, arguments[i], signature.args[i], types.intp) for i in (1, 3, 4))
        width, length = b.extract_value(arrays[1].shape, 1), b.extract_value(arrays[0].shape, 1)
        share = [b.gep(arrays[0].data, [b.add(first, b.mul(length, size(t)))]) for t in range(ROWS)]
        with for_range_slice(b, size(0), width, size(LANES), SIZE) as (d, _):
            column = b.gep(arrays[1].data, [b.add(b.mul(place, width), d)])
            outs = [b.gep(arrays[2].data, [b.add(d, b.mul(width, size(t)))]) for t in range(ROWS)]
            outs = [b.bitcast(pointer, vector.as_pointer()) for pointer in outs]
            sums = [b.select(arguments[6], b.load(o, align=4), ir.Constant(vector, None)) for o in outs]
            before, body, after = b.block, b.append_basic_block("mix"), b.append_basic_block("mixed")
            b.cbranch(b.icmp_signed(">", n, size(0)), body, after)
            b.position_at_end(body)
            i, totals = b.phi(SIZE), [b.phi(vector) for _ in sums]
            value = b.load(b.bitcast(b.gep(column, [b.mul(i, width)]), vector.as_pointer()), align=4)
            added = [
                b.fadd(total, b.fmul(spread(b, b.load(b.gep(p, [i])), LANES), value, flags=ANY_ORDER), flags=ANY_ORDER)
                for total, p in zip(totals, share, strict=True)
            ]
            onward = b.add(i, size(1))
            b.cbranch(b.icmp_signed("<", onward, n), body, after)
            i.add_incoming(size(0), before)
            i.add_incoming(onward, body)
            b.position_at_end(after)
            finals = [b.phi(vector) for _ in sums]
            for t in range(ROWS):
                for phi in (totals[t], finals[t]):
                    phi.add_incoming(sums[t], before)
                    phi.add_incoming(added[t], body)
                b.store(finals[t], outs[t], align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def power_of_two(typingctx: Any, n: Any) -> Any:
    """2^n, fp32, for a whole n, int32, from -126 to 127: the exponent's bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        exponent = builder.add(arguments[0], ir.Constant(INT, 127))
        return builder.bitcast(builder.shl(exponent, ir.Constant(INT, 23)), FLOAT)

    return types.float32(types.int32), generate


class _Loop:
    """Emits the loop over the length of the rows."""

    def __init__(self, builder: Any, weights: Rows, groups: Rows, x: Rows) -> None:
        self.b, self.dtype = builder, weights.dtype
        self.weights, self.groups, self.x = weights, groups, x
        self.sum_type = ir.VectorType(INT if self.dtype == types.int8 else FLOAT, LANES)

    def run(self, outs: int, rows: int) -> list[Any]:
        b, step = self.b, TAKEN[self.dtype]
        # one sum that waited for the last addition to end would take several times as long
        unrolled = STRIDE // step if outs * rows == 1 else 1
        before, body, after = b.block, b.append_basic_block("products"), b.append_basic_block("sums")
        b.branch(body)
        b.position_at_end(body)
        at = b.phi(SIZE)
        sums = [b.phi(self.sum_type) for _ in range(outs * rows * unrolled)]
        at.add_incoming(size(0), before)
        added: list[Any] = []
        for u in range(unrolled):
            place = b.add(at, size(u * step))
            activations = [self.activations(r, place) for r in range(rows)]
            for o in range(outs):
                w, scale = self.weights.weights(o, place), None
                if self.dtype == types.uint8:
                    scale = spread(b, self.groups.group_scale(o, place), LANES)
                for r in range(rows):
                    added.append(self.multiply_add(sums[len(added)], w, activations[r], scale))
        onward = b.add(at, size(unrolled * step))
        at.add_incoming(onward, body)
        for phi, new in zip(sums, added, strict=True):
            phi.add_incoming(ir.Constant(self.sum_type, None), before)
            phi.add_incoming(new, body)
        b.cbranch(b.icmp_signed("<", onward, self.x.width), body, after)
        b.position_at_end(after)
        return [self.total(added[n :: outs * rows]) for n in range(outs * rows)]

    def activations(self, r: int, place: Any) -> list[Any]:
        if self.x.dtype == types.float32:
            return [self.x.load(r, place, FLOAT, LANES)]
        parts = range(0, TAKEN[self.dtype], 16)
        return [self.x.load(r, self.b.add(place, size(n)), SHORT, 16) for n in parts]

    def multiply_add(self, total: Any, w: Sequence[Any], x: Sequence[Any], scale: Any) -> Any:
        b = self.b
        if self.x.dtype == types.float32:
            return b.fadd(total, b.fmul(w[0], x[0], flags=ANY_ORDER), flags=ANY_ORDER)
        products = [multiply_pairs(b, a, c) for a, c in zip(w, x, strict=True)]
        if scale is None:
            return b.add(total, products[0])
        group = b.sitofp(b.add(*products), self.sum_type)
        return b.fadd(total, b.fmul(group, scale, flags=ANY_ORDER), flags=ANY_ORDER)

    def total(self, vectors: Sequence[Any]) -> Any:
        """The sum of all that is in these vectors, as a float."""
        b = self.b
        real = self.sum_type.element == FLOAT
        add: Callable[[Any, Any], Any] = (lambda a, c: b.fadd(a, c, flags=ANY_ORDER)) if real else b.add
        vector = vectors[0]
        for other in vectors[1:]:
            vector = add(vector, other)
        for half in (4, 2, 1):
            vector = add(pick(b, vector, range(half)), pick(b, vector, range(half, 2 * half)))
        value = b.extract_element(vector, ir.Constant(INT, 0))
        return value if real else b.sitofp(value, FLOAT)
