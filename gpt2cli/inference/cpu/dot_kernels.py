"""The innermost loops of products and of attention: dot products and weighted sums, as LLVM instructions.

They take most of the time. Numba's own loops over integers are not compiled to the instructions that multiply and add
sixteen integers at once, so these functions emit LLVM's vector instructions, by way of `llvm_simd.py`.
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
    INDEX,
    INT,
    LANES,
    SHORT,
    WEIGHTS_PER_STEP,
    MatrixRows,
    broadcast,
    index,
    multiply_pairs,
    shuffle,
)
from gpt2cli.inference.cpu.packed_layout import WIDTH_MULTIPLE

TILE_ROWS = 4
"""Rows of activations that are multiplied together. A single row is multiplied alone."""
TASK_ROWS = 128
"""Rows of activations that a task multiplies by a block of outputs: as many as the processor's cache holds."""


@intrinsic
def dot_products(typingctx: Any, weights: Any, groups: Any, i: Any, x: Any, r: Any, outs: Any, rows: Any) -> Any:
    """The dot products of weights[i : i + outs] and x[r : r + rows], fp32, in a tuple, those of weights[i] first.

    `weights` (out, in), `groups` (out, in / GROUP) for int4, and `x` (rows, in) are contiguous; `outs` and `rows` are
    literal. Never reads out of bounds. Of the scales, only those of int4's groups are applied.
    """
    if weights.dtype not in WEIGHTS_PER_STEP or not isinstance(outs, types.IntegerLiteral):
        raise TypingError("dot_products takes weights of the types in llvm_simd.py, and literal sizes")
    n_outs, n_rows = outs.literal_value, rows.literal_value
    signature = types.UniTuple(types.float32, n_outs * n_rows)(weights, groups, i, x, r, outs, rows)

    def emit_dot_products(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        i, r = (context.cast(builder, arguments[at], signature.args[at], types.intp) for at in (2, 4))
        parts = (MatrixRows(context, builder, signature, arguments, at, row) for at, row in ((0, i), (1, i), (3, r)))
        sums = _DotProductLoop(builder, *parts).emit(n_outs, n_rows)
        return context.make_tuple(builder, signature.return_type, sums)

    return signature, emit_dot_products


@intrinsic
def weighted_sums(typingctx: Any, weights: Any, s: Any, values: Any, at: Any, n: Any, out: Any, add: Any) -> Any:
    """weights[:, s : s + n] @ values[at : at + n]: written to `out`, or added to it.

    `weights` (TILE_ROWS, S), `values` (S', D) and `out` (TILE_ROWS, D) are contiguous, in fp32, and D is a multiple of
    LANES.
    """
    signature = types.void(weights, s, values, at, n, out, add)

    def emit_weighted_sums(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(FLOAT, LANES)
        weights, values, out = (context.make_array(signature.args[i])(context, b, arguments[i]) for i in (0, 2, 5))
        s, at, n = (context.cast(b, arguments[i], signature.args[i], types.intp) for i in (1, 3, 4))
        length, width = b.extract_value(weights.shape, 1), b.extract_value(values.shape, 1)
        weight_rows = [b.gep(weights.data, [b.add(s, b.mul(length, index(t)))]) for t in range(TILE_ROWS)]
        with for_range_slice(b, index(0), width, index(LANES), INDEX) as (d, _):
            column = b.gep(values.data, [b.add(b.mul(at, width), d)])
            outs = [b.gep(out.data, [b.add(d, b.mul(width, index(t)))]) for t in range(TILE_ROWS)]
            outs = [b.bitcast(pointer, vector.as_pointer()) for pointer in outs]
            sums = [b.select(arguments[6], b.load(o, align=4), ir.Constant(vector, None)) for o in outs]
            before, body, after = b.block, b.append_basic_block("sum"), b.append_basic_block("summed")
            b.cbranch(b.icmp_signed(">", n, index(0)), body, after)
            b.position_at_end(body)
            i, totals = b.phi(INDEX), [b.phi(vector) for _ in sums]
            value = b.load(b.bitcast(b.gep(column, [b.mul(i, width)]), vector.as_pointer()), align=4)
            added = []
            for total, row in zip(totals, weight_rows, strict=True):
                weight = broadcast(b, b.load(b.gep(row, [i])), LANES)
                added.append(b.fadd(total, b.fmul(weight, value, flags=ANY_ORDER), flags=ANY_ORDER))
            following = b.add(i, index(1))
            b.cbranch(b.icmp_signed("<", following, n), body, after)
            i.add_incoming(index(0), before)
            i.add_incoming(following, body)
            b.position_at_end(after)
            finals = [b.phi(vector) for _ in sums]
            for t in range(TILE_ROWS):
                for phi in (totals[t], finals[t]):
                    phi.add_incoming(sums[t], before)
                    phi.add_incoming(added[t], body)
                b.store(finals[t], outs[t], align=4)
        return context.get_dummy_value()

    return signature, emit_weighted_sums


@intrinsic
def power_of_two(typingctx: Any, n: Any) -> Any:
    """2^n, fp32, for an integer n, int32, from -126 to 127. n + 127 is the exponent in fp32's bits."""

    def emit_power(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        exponent = builder.add(arguments[0], ir.Constant(INT, 127))
        return builder.bitcast(builder.shl(exponent, ir.Constant(INT, 23)), FLOAT)

    return types.float32(types.int32), emit_power


class _DotProductLoop:
    """Emits the loop of `dot_products` over the length of the rows."""

    def __init__(self, builder: Any, weights: MatrixRows, groups: MatrixRows, x: MatrixRows) -> None:
        self.b, self.dtype = builder, weights.dtype
        self.weights, self.groups, self.x = weights, groups, x
        self.sum_type = ir.VectorType(INT if self.dtype == types.int8 else FLOAT, LANES)

    def emit(self, outs: int, rows: int) -> list[Any]:
        """Emit the loop. Returns the dot products."""
        b, step = self.b, WEIGHTS_PER_STEP[self.dtype]
        # a single accumulator would wait for each addition to finish, so one row and one output get several
        unrolled = WIDTH_MULTIPLE // step if outs * rows == 1 else 1
        before, body, after = b.block, b.append_basic_block("products"), b.append_basic_block("sums")
        b.branch(body)
        b.position_at_end(body)
        at = b.phi(INDEX)
        sums = [b.phi(self.sum_type) for _ in range(outs * rows * unrolled)]
        at.add_incoming(index(0), before)
        added: list[Any] = []
        for u in range(unrolled):
            place = b.add(at, index(u * step))
            activations = [self.activations(r, place) for r in range(rows)]
            for o in range(outs):
                w, scale = self.weights.weights(o, place), None
                if self.dtype == types.uint8:
                    scale = broadcast(b, self.groups.group_scale(o, place), LANES)
                for r in range(rows):
                    added.append(self.multiply_add(sums[len(added)], w, activations[r], scale))
        following = b.add(at, index(unrolled * step))
        at.add_incoming(following, body)
        for phi, new in zip(sums, added, strict=True):
            phi.add_incoming(ir.Constant(self.sum_type, None), before)
            phi.add_incoming(new, body)
        b.cbranch(b.icmp_signed("<", following, self.x.width), body, after)
        b.position_at_end(after)
        return [self.total(added[n :: outs * rows]) for n in range(outs * rows)]

    def activations(self, r: int, place: Any) -> list[Any]:
        """The activations of row r that one step multiplies, as vectors."""
        if self.x.dtype == types.float32:
            return [self.x.load(r, place, FLOAT, LANES)]
        parts = range(0, WEIGHTS_PER_STEP[self.dtype], 16)
        return [self.x.load(r, self.b.add(place, index(n)), SHORT, 16) for n in parts]

    def multiply_add(self, total: Any, w: Sequence[Any], x: Sequence[Any], scale: Any) -> Any:
        """`total` plus the products of one step's weights and activations; `scale` is that of int4's group."""
        b = self.b
        if self.x.dtype == types.float32:
            return b.fadd(total, b.fmul(w[0], x[0], flags=ANY_ORDER), flags=ANY_ORDER)
        products = [multiply_pairs(b, a, c) for a, c in zip(w, x, strict=True)]
        if scale is None:
            return b.add(total, products[0])
        group = b.sitofp(b.add(*products), self.sum_type)
        return b.fadd(total, b.fmul(group, scale, flags=ANY_ORDER), flags=ANY_ORDER)

    def total(self, vectors: Sequence[Any]) -> Any:
        """The sum of all elements of these vectors, as a float."""
        b = self.b
        real = self.sum_type.element == FLOAT
        add: Callable[[Any, Any], Any] = (lambda a, c: b.fadd(a, c, flags=ANY_ORDER)) if real else b.add
        vector = vectors[0]
        for other in vectors[1:]:
            vector = add(vector, other)
        for half in (4, 2, 1):
            vector = add(shuffle(b, vector, range(half)), shuffle(b, vector, range(half, 2 * half)))
        value = b.extract_element(vector, ir.Constant(INT, 0))
        return value if real else b.sitofp(value, FLOAT)
