"""The innermost loop of a matrix product: dot products of a few rows of weights with a few rows of activations.

It is written in LLVM's language, through Numba, because this is where the time goes: Numba's own loops over whole
numbers do not become the instructions that multiply and add sixteen of them at once. Nothing here is a processor's
own: LLVM turns vectors into what there is.

What weights are held in goes by the type of their array:

    float32   fp32
    uint16    fp16, as bits
    int16     bf16, as bits
    int8      int8; activations are int16
    uint8     int4: byte j of 16 holds weights j (low half) and j + 16 of a group of 32, each plus 8; activations are
              int16, and a group has a scale, fp16 as bits
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import for_range_slice
from numba.core.errors import TypingError
from numba.extending import intrinsic

from gpt2cli.model.quantization import GROUP

STRIDE = 64
"""Rows of weights and of activations are as long as a multiple of this."""
OUTS = 16
"""Rows of weights come in a multiple of this."""
ROWS = 4
"""Rows of activations come in a multiple of this, or alone."""
LANES = 8
"""Numbers in a vector of fp32."""
BYTE, SHORT, INT, SIZE = (ir.IntType(bits) for bits in (8, 16, 32, 64))
HALF, FLOAT = ir.HalfType(), ir.FloatType()
FAST = ("reassoc", "contract", "nsz")
_STEP = {types.float32: 8, types.uint16: 8, types.int16: 8, types.int8: 16, types.uint8: 32}
"""Weights that are taken at a time."""


@intrinsic
def tile(typingctx: Any, weights: Any, groups: Any, i: Any, x: Any, r: Any, outs: Any, rows: Any) -> Any:
    """The dot products of weights[i : i + outs] with x[r : r + rows], fp32, in a tuple, those of weights[i] first.

    `weights` (out, in), `groups` (out, in / GROUP) for int4, and `x` (rows, in) are contiguous; `outs` and `rows` are
    literal. All are read past no end.
    """
    if weights.dtype not in _STEP or not isinstance(outs, types.IntegerLiteral):
        raise TypingError("tile takes weights of the types in its module's docstring, and literal sizes")
    n_outs, n_rows = outs.literal_value, rows.literal_value
    signature = types.UniTuple(types.float32, n_outs * n_rows)(weights, groups, i, x, r, outs, rows)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        i, r = (context.cast(builder, arguments[at], signature.args[at], types.intp) for at in (2, 4))
        rows = (first_number(context, builder, signature, arguments, at, row) for at, row in ((0, i), (1, i), (3, r)))
        loop = Loop(builder, weights.dtype, *rows)
        sums = loop.run(n_outs, n_rows, context.make_array(signature.args[3])(context, builder, arguments[3]))
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
        share = [b.gep(arrays[0].data, [b.add(first, b.mul(length, ir.Constant(SIZE, t)))]) for t in range(ROWS)]
        with for_range_slice(b, ir.Constant(SIZE, 0), width, ir.Constant(SIZE, LANES), SIZE) as (d, _):
            column = b.gep(arrays[1].data, [b.add(b.mul(place, width), d)])
            outs = [b.gep(arrays[2].data, [b.add(d, b.mul(width, ir.Constant(SIZE, t)))]) for t in range(ROWS)]
            outs = [b.bitcast(pointer, vector.as_pointer()) for pointer in outs]
            sums = [b.select(arguments[6], b.load(o, align=4), ir.Constant(vector, None)) for o in outs]
            before, body, after = b.block, b.append_basic_block("mix"), b.append_basic_block("mixed")
            b.cbranch(b.icmp_signed(">", n, ir.Constant(SIZE, 0)), body, after)
            b.position_at_end(body)
            i, totals = b.phi(SIZE), [b.phi(vector) for _ in sums]
            value = b.load(b.bitcast(b.gep(column, [b.mul(i, width)]), vector.as_pointer()), align=4)
            added = [
                b.fadd(total, b.fmul(spread(b, b.load(b.gep(p, [i])), LANES), value, flags=FAST), flags=FAST)
                for total, p in zip(totals, share, strict=True)
            ]
            onward = b.add(i, ir.Constant(SIZE, 1))
            b.cbranch(b.icmp_signed("<", onward, n), body, after)
            i.add_incoming(ir.Constant(SIZE, 0), before)
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


def first_number(context: Any, builder: Any, signature: Any, arguments: Any, i: int, row: Any) -> tuple[Any, Any]:
    """Where a row of the i-th argument, an array, begins, and how long its rows are."""
    array = context.make_array(signature.args[i])(context, builder, arguments[i])
    width = builder.extract_value(array.shape, 1)
    return builder.gep(array.data, [builder.mul(row, width)]), width


class Loop:
    """Emits the loop over the length of the rows."""

    def __init__(self, builder: Any, dtype: Any, weights: Any, groups: Any, x: Any) -> None:
        self.b, self.dtype = builder, dtype
        self.weights, self.groups, self.x = weights, groups, x  # the first row, and how long a row is
        self.step = _STEP[dtype]
        self.sum_type = ir.VectorType(INT if dtype == types.int8 else FLOAT, 8)

    def run(self, outs: int, rows: int, x: Any) -> list[Any]:
        b = self.b
        # one sum that waited for the last addition to end would take several times as long
        unrolled = STRIDE // self.step if outs * rows == 1 else 1
        before, body, after = b.block, b.append_basic_block("products"), b.append_basic_block("sums")
        b.branch(body)
        b.position_at_end(body)
        at = b.phi(SIZE)
        sums = [b.phi(self.sum_type) for _ in range(outs * rows * unrolled)]
        at.add_incoming(ir.Constant(SIZE, 0), before)
        added: list[Any] = []
        for u in range(unrolled):
            place = b.add(at, ir.Constant(SIZE, u * self.step))
            w = [self.weights_at(o, place) for o in range(outs)]
            if self.dtype == types.uint8:
                w = [[*w[o], spread(b, self.scale_at(o, place), LANES)] for o in range(outs)]
            activations = [self.x_at(r, place) for r in range(rows)]
            for o in range(outs):
                for r in range(rows):
                    added.append(self.multiply_add(sums[len(added)], w[o], activations[r]))
        onward = b.add(at, ir.Constant(SIZE, unrolled * self.step))
        at.add_incoming(onward, body)
        for phi, new in zip(sums, added, strict=True):
            phi.add_incoming(ir.Constant(self.sum_type, None), before)
            phi.add_incoming(new, body)
        width = b.mul(self.weights[1], ir.Constant(SIZE, 2 if self.dtype == types.uint8 else 1))
        b.cbranch(b.icmp_signed("<", onward, width), body, after)
        b.position_at_end(after)
        return [self.total(added[n :: outs * rows]) for n in range(outs * rows)]

    def load(self, row: tuple[Any, Any], number: int, place: Any, kind: Any, count: int) -> Any:
        """`count` values of type `kind` at a place in the row that is `number` rows on."""
        b = self.b
        start, width = row
        pointer = b.gep(start, [b.add(b.mul(width, ir.Constant(SIZE, number)), place)])
        wanted = kind if count == 1 else ir.VectorType(kind, count)
        return b.load(b.bitcast(pointer, wanted.as_pointer()), align=1)

    def weights_at(self, o: int, place: Any) -> list[Any]:
        """The weights there, as vectors of what activations are; for int4, without their scale."""
        b, dtype = self.b, self.dtype
        if dtype == types.float32:
            return [self.load(self.weights, o, place, FLOAT, 8)]
        if dtype == types.uint16:
            halves = b.bitcast(self.load(self.weights, o, place, SHORT, 8), ir.VectorType(HALF, 8))
            return [b.fpext(halves, ir.VectorType(FLOAT, 8))]
        if dtype == types.int16:
            bits = b.zext(self.load(self.weights, o, place, SHORT, 8), ir.VectorType(INT, 8))
            return [b.bitcast(b.shl(bits, splat(INT, 16, 8)), ir.VectorType(FLOAT, 8))]
        shorts = ir.VectorType(SHORT, 16)
        if dtype == types.int8:
            return [b.sext(self.load(self.weights, o, place, BYTE, 16), shorts)]
        both = self.load(self.weights, o, b.lshr(place, ir.Constant(SIZE, 1)), BYTE, 16)
        low, high = b.and_(both, splat(BYTE, 15, 16)), b.lshr(both, splat(BYTE, 4, 16))
        return [b.sext(b.sub(half, splat(BYTE, 8, 16)), shorts) for half in (low, high)]

    def scale_at(self, o: int, place: Any) -> Any:
        """The scale of the group there, for int4."""
        b = self.b
        group = b.lshr(place, ir.Constant(SIZE, GROUP.bit_length() - 1))
        return b.fpext(b.bitcast(self.load(self.groups, o, group, SHORT, 1), HALF), FLOAT)

    def x_at(self, r: int, place: Any) -> list[Any]:
        if self.sum_type.element == FLOAT and self.dtype != types.uint8:
            return [self.load(self.x, r, place, FLOAT, 8)]
        parts = range(0, self.step, 16)
        return [self.load(self.x, r, self.b.add(place, ir.Constant(SIZE, n)), SHORT, 16) for n in parts]

    def multiply_add(self, total: Any, w: Sequence[Any], x: Sequence[Any]) -> Any:
        b = self.b
        if len(w) == 1 and self.sum_type.element == FLOAT:
            return b.fadd(total, b.fmul(w[0], x[0], flags=FAST), flags=FAST)
        products = [multiply_pairs(b, a, c) for a, c in zip(w, x, strict=False)]
        if len(w) == 1:
            return b.add(total, products[0])
        group = b.sitofp(b.add(*products), self.sum_type)
        return b.fadd(total, b.fmul(group, w[2], flags=FAST), flags=FAST)

    def total(self, vectors: Sequence[Any]) -> Any:
        """The sum of all that is in these vectors, as a float."""
        b = self.b
        real = self.sum_type.element == FLOAT
        add: Callable[[Any, Any], Any] = (lambda a, c: b.fadd(a, c, flags=FAST)) if real else b.add
        vector = vectors[0]
        for other in vectors[1:]:
            vector = add(vector, other)
        for half in (4, 2, 1):
            vector = add(pick(b, vector, range(half)), pick(b, vector, range(half, 2 * half)))
        value = b.extract_element(vector, ir.Constant(INT, 0))
        return value if real else b.sitofp(value, FLOAT)


def multiply_pairs(b: Any, x: Any, y: Any) -> Any:
    """Sixteen products of int16, added up in pairs: one instruction on most processors."""
    wide = ir.VectorType(INT, 16)
    product = b.mul(b.sext(x, wide), b.sext(y, wide))
    even, odd = (pick(b, product, range(first, 16, 2)) for first in (0, 1))
    return b.add(even, odd)


def splat(kind: Any, value: int, count: int) -> Any:
    return ir.Constant(ir.VectorType(kind, count), [ir.Constant(kind, value)] * count)


def spread(builder: Any, value: Any, count: int) -> Any:
    undefined = ir.Constant(ir.VectorType(value.type, count), ir.Undefined)
    return pick(builder, builder.insert_element(undefined, value, ir.Constant(INT, 0)), [0] * count)


def pick(builder: Any, vector: Any, places: Sequence[int]) -> Any:
    undefined = ir.Constant(vector.type, ir.Undefined)
    mask = ir.Constant(ir.VectorType(INT, len(places)), [ir.Constant(INT, place) for place in places])
    return builder.shuffle_vector(vector, undefined, mask)
