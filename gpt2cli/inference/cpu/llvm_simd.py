"""What the innermost loops are written with: LLVM's vectors, by way of Numba, and weights as such.

Nothing here is a processor's own: LLVM turns vectors into what there is.

What weights are held in goes by the type of their array:

    float32   fp32
    uint16    fp16, as bits
    int16     bf16, as bits
    int8      int8; activations are int16
    uint8     int4: byte j of 16 holds weights j (low half) and j + 16 of a group of 32, each plus 8; activations are
              int16, and a group has a scale, fp16 as bits
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types

from gpt2cli.model.quantization import GROUP

LANES = 8
"""Numbers in a vector of fp32."""
BYTE, SHORT, INT, SIZE = (ir.IntType(bits) for bits in (8, 16, 32, 64))
HALF, FLOAT = ir.HalfType(), ir.FloatType()
ANY_ORDER = ("reassoc", "contract", "nsz")
"""Flags of sums that may be taken in any order."""
TAKEN = {types.float32: 8, types.uint16: 8, types.int16: 8, types.int8: 16, types.uint8: 32}
"""Weights that are taken at a time, by type."""


class Rows:
    """Emits the reading and writing of an array (n, width), contiguous, from one of its rows on."""

    def __init__(self, context: Any, b: Any, signature: Any, arguments: Any, which: int, first: Any) -> None:
        self.b, self.dtype = b, signature.args[which].dtype
        array = context.make_array(signature.args[which])(context, b, arguments[which])
        self.width = b.extract_value(array.shape, 1)
        self.start = b.gep(array.data, [b.mul(first, self.width)])

    def load(self, row: int, place: Any, kind: Any, count: int = 1) -> Any:
        """`count` numbers of type `kind` at a place in a row."""
        wanted = kind if count == 1 else ir.VectorType(kind, count)
        return self.b.load(self._pointer(row, place, wanted), align=1)

    def store(self, value: Any, row: int, place: Any) -> None:
        """Write a vector to a place in a row."""
        self.b.store(value, self._pointer(row, place, value.type), align=1)

    def _pointer(self, row: int, place: Any, kind: Any) -> Any:
        at = self.b.add(self.b.mul(self.width, size(row)), place)
        return self.b.bitcast(self.b.gep(self.start, [at]), kind.as_pointer())

    def weights(self, row: int, place: Any) -> list[Any]:
        """The weights there, as vectors of what activations are; of int4, without their scale."""
        b = self.b
        if self.dtype == types.float32:
            return [self.load(row, place, FLOAT, 8)]
        if self.dtype == types.uint16:
            return [
                b.fpext(b.bitcast(self.load(row, place, SHORT, 8), ir.VectorType(HALF, 8)), ir.VectorType(FLOAT, 8))
            ]
        if self.dtype == types.int16:
            bits = b.zext(self.load(row, place, SHORT, 8), ir.VectorType(INT, 8))
            return [b.bitcast(b.shl(bits, splat(INT, 16, 8)), ir.VectorType(FLOAT, 8))]
        if self.dtype == types.int8:
            return [b.sext(self.load(row, place, BYTE, 16), ir.VectorType(SHORT, 16))]
        both = self.load(row, b.lshr(place, size(1)), BYTE, 16)
        low, high = b.and_(both, splat(BYTE, 15, 16)), b.lshr(both, splat(BYTE, 4, 16))
        return [b.sext(b.sub(half, splat(BYTE, 8, 16)), ir.VectorType(SHORT, 16)) for half in (low, high)]

    def group_scale(self, row: int, place: Any) -> Any:
        """If these rows are the scales of int4's groups: the scale of the weights at that place."""
        group = self.b.lshr(place, size(GROUP.bit_length() - 1))
        return self.b.fpext(self.b.bitcast(self.load(row, group, SHORT), HALF), FLOAT)


def size(n: int) -> Any:
    """A number that counts places in memory."""
    return ir.Constant(SIZE, n)


def multiply_pairs(b: Any, x: Any, y: Any) -> Any:
    """Sixteen products of int16, added up in pairs: one instruction on most processors."""
    wide = ir.VectorType(INT, 16)
    product = b.mul(b.sext(x, wide), b.sext(y, wide))
    even, odd = (pick(b, product, range(first, 16, 2)) for first in (0, 1))
    return b.add(even, odd)


def splat(kind: Any, value: int, count: int) -> Any:
    """A vector of one constant."""
    return ir.Constant(ir.VectorType(kind, count), [ir.Constant(kind, value)] * count)


def spread(builder: Any, value: Any, count: int) -> Any:
    """A vector of one value."""
    undefined = ir.Constant(ir.VectorType(value.type, count), ir.Undefined)
    return pick(builder, builder.insert_element(undefined, value, ir.Constant(INT, 0)), [0] * count)


def pick(builder: Any, vector: Any, places: Sequence[int]) -> Any:
    """A vector of what stands at these places of another."""
    undefined = ir.Constant(vector.type, ir.Undefined)
    mask = ir.Constant(ir.VectorType(INT, len(places)), [ir.Constant(INT, place) for place in places])
    return builder.shuffle_vector(vector, undefined, mask)
