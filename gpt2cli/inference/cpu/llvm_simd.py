"""The vector operations that the innermost loops are built from, as LLVM instructions, by way of Numba.

The operations are not specific to a processor: LLVM translates vectors to the instructions that the processor has.
The type of a matrix's array says how its weights are stored:

    float32   fp32
    uint16    fp16, as bits
    int16     bf16, as bits
    int8      int8; activations are int16
    uint8     int4, two in a byte; activations are int16

The package's docstring draws the bytes of each.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types

from gpt2cli.inference.cpu.processor import LANES as LANES
from gpt2cli.model.quantization import GROUP

BYTE, SHORT, INT, INDEX = (ir.IntType(bits) for bits in (8, 16, 32, 64))
HALF, FLOAT = ir.HalfType(), ir.FloatType()
ANY_ORDER = ("reassoc", "contract", "nsz")
"""Flags of sums whose order is free."""
WEIGHTS_PER_STEP = {
    types.float32: LANES,
    types.uint16: LANES,
    types.int16: LANES,
    types.int8: 2 * LANES,
    types.uint8: GROUP,
}
"""Weights that one step of a loop reads, by the type of the array."""


class MatrixRows:
    """Emits loads from a contiguous array (n, width) and stores to it. Rows count from the row `first` on.

    The array is argument number `which` of the intrinsic with these `arguments` and this `signature`.
    """

    def __init__(self, context: Any, b: Any, signature: Any, arguments: Any, which: int, first: Any) -> None:
        self.b, self.dtype = b, signature.args[which].dtype
        array = context.make_array(signature.args[which])(context, b, arguments[which])
        self.width = b.extract_value(array.shape, 1)
        self.start = b.gep(array.data, [b.mul(first, self.width)])

    def load(self, row: int, place: Any, kind: Any, count: int = 1) -> Any:
        """`count` numbers of type `kind` from column `place` on: a vector, or a number if it is one."""
        wanted = kind if count == 1 else ir.VectorType(kind, count)
        return self.b.load(self._pointer(row, place, wanted), align=1)

    def store(self, value: Any, row: int, place: Any) -> None:
        """Write a vector to a row, from column `place` on."""
        self.b.store(value, self._pointer(row, place, value.type), align=1)

    def _pointer(self, row: int, place: Any, kind: Any) -> Any:
        at = self.b.add(self.b.mul(self.width, index(row)), place)
        return self.b.bitcast(self.b.gep(self.start, [at]), kind.as_pointer())

    def weights(self, row: int, place: Any) -> list[Any]:
        """The weights of one step, as vectors of the activations' type. Those of int4 are not scaled."""
        b = self.b
        if self.dtype == types.float32:
            return [self.load(row, place, FLOAT, LANES)]
        if self.dtype == types.uint16:
            halves = b.bitcast(self.load(row, place, SHORT, LANES), ir.VectorType(HALF, LANES))
            return [b.fpext(halves, ir.VectorType(FLOAT, LANES))]
        if self.dtype == types.int16:
            bits = b.zext(self.load(row, place, SHORT, LANES), ir.VectorType(INT, LANES))
            return [b.bitcast(b.shl(bits, constant_vector(INT, 16, LANES)), ir.VectorType(FLOAT, LANES))]
        if self.dtype == types.int8:
            return [b.sext(self.load(row, place, BYTE, 2 * LANES), ir.VectorType(SHORT, 2 * LANES))]
        both = self.load(row, b.lshr(place, index(1)), BYTE, GROUP // 2)
        low, high = b.and_(both, constant_vector(BYTE, 15, 16)), b.lshr(both, constant_vector(BYTE, 4, 16))
        whole = shuffle(b, low, range(GROUP), high)
        numbers = b.sext(b.sub(whole, constant_vector(BYTE, 8, GROUP)), ir.VectorType(SHORT, GROUP))
        return [shuffle(b, numbers, range(n, n + 2 * LANES)) for n in range(0, GROUP, 2 * LANES)]

    def group_scale(self, row: int, place: Any) -> Any:
        """The scale of the int4 weights at column `place`, if these rows are the scales of groups."""
        group = self.b.lshr(place, index(GROUP.bit_length() - 1))
        return self.b.fpext(self.b.bitcast(self.load(row, group, SHORT), HALF), FLOAT)


def index(n: int) -> Any:
    """A constant for indexes into arrays."""
    return ir.Constant(INDEX, n)


def multiply_pairs(b: Any, x: Any, y: Any) -> Any:
    """Multiply vectors of int16 and add neighbours: half as many int32. One instruction on x86 (vpmaddwd)."""
    count = x.type.count
    wide = ir.VectorType(INT, count)
    product = b.mul(b.sext(x, wide), b.sext(y, wide))
    even, odd = (shuffle(b, product, range(first, count, 2)) for first in (0, 1))
    return b.add(even, odd)


def constant_vector(kind: Any, value: int, count: int) -> Any:
    """A vector of `count` copies of a constant."""
    return ir.Constant(ir.VectorType(kind, count), [ir.Constant(kind, value)] * count)


def broadcast(builder: Any, value: Any, count: int) -> Any:
    """A vector of `count` copies of a value."""
    undefined = ir.Constant(ir.VectorType(value.type, count), ir.Undefined)
    return shuffle(builder, builder.insert_element(undefined, value, ir.Constant(INT, 0)), [0] * count)


def shuffle(builder: Any, vector: Any, places: Sequence[int], other: Any = None) -> Any:
    """The elements at these places of a vector, or of a vector and another one after it, as a vector."""
    mask = ir.Constant(ir.VectorType(INT, len(places)), [ir.Constant(INT, place) for place in places])
    return builder.shuffle_vector(vector, other or ir.Constant(vector.type, ir.Undefined), mask)
