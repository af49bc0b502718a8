"""The vector operations that the innermost loops are built from, as LLVM's instructions.

The operations are not specific to a processor: LLVM translates vectors to the instructions that the processor has.
The type of a matrix's array says how its weights are stored:

    float32   fp32
    uint16    fp16, as bits
    int16     bf16, as bits
    int8      int8; activations are int16
    uint8     int4, two in a byte; activations are int16

The package's docstring draws the bytes of each.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from gpt2cli.inference.cpu.compiler.emission import declared
from gpt2cli.inference.cpu.compiler.values import Array
from gpt2cli.inference.cpu.processor import LANES
from gpt2cli.model.quantization import GROUP

BYTE, SHORT, INT, INDEX = (ir.IntType(bits) for bits in (8, 16, 32, 64))
HALF, FLOAT = ir.HalfType(), ir.FloatType()
CACHE_LINE = 64
"""Bytes that a processor reads from memory at a time."""
WEIGHTS_PER_STEP = {
    np.dtype("float32"): LANES,
    np.dtype("uint16"): LANES,
    np.dtype("int16"): LANES,
    np.dtype("int8"): 2 * LANES,
    np.dtype("uint8"): GROUP,
}
"""Weights that one step of a loop reads, by the type of the array."""


class MatrixRows:
    """Emits loads from a contiguous array (n, width) and stores to it. Rows count from the row `first` on.

    An array (n,) counts as (1, n).
    """

    def __init__(self, b: Any, array: Array, first: Any) -> None:
        self.b, self.dtype, self.width = b, array.dtype, array.sizes[-1]
        self.start = b.gep(array.data, [b.mul(first, self.width)])

    def load(self, row: int, place: Any, kind: Any, count: int = 1) -> Any:
        """`count` numbers of type `kind` from column `place` on: a vector, or a number if it is one."""
        wanted = kind if count == 1 else ir.VectorType(kind, count)
        return self.b.load(self.pointer(row, place, wanted), align=1)

    def store(self, value: Any, row: int, place: Any) -> None:
        """Write a vector to a row, from column `place` on."""
        self.b.store(value, self.pointer(row, place, value.type), align=1)

    def pointer(self, row: int, place: Any, kind: Any) -> Any:
        at = self.b.add(self.b.mul(self.width, index(row)), place)
        return self.b.bitcast(self.b.gep(self.start, [at]), kind.as_pointer())

    def weights(self, row: int, place: Any) -> list[Any]:
        """The weights of one step, as vectors of the activations' type. Those of int4 are not scaled."""
        b = self.b
        if self.dtype == "float32":
            return [self.load(row, place, FLOAT, LANES)]
        if self.dtype == "uint16":
            halves = b.bitcast(self.load(row, place, SHORT, LANES), ir.VectorType(HALF, LANES))
            return [b.fpext(halves, ir.VectorType(FLOAT, LANES))]
        if self.dtype == "int16":
            bits = b.zext(self.load(row, place, SHORT, LANES), ir.VectorType(INT, LANES))
            return [b.bitcast(b.shl(bits, constant_vector(INT, 16, LANES)), ir.VectorType(FLOAT, LANES))]
        if self.dtype == "int8":
            return [b.sext(self.load(row, place, BYTE, 2 * LANES), ir.VectorType(SHORT, 2 * LANES))]
        both = b.zext(self.load(row, b.lshr(place, index(1)), BYTE, 16), ir.VectorType(SHORT, 16))
        low, high = b.and_(both, constant_vector(SHORT, 15, 16)), b.lshr(both, constant_vector(SHORT, 4, 16))
        return [b.sub(half, constant_vector(SHORT, 8, 16)) for half in (low, high)]

    def group_scales(self, row: int, place: Any) -> Any:
        """The scale of the int4 weights at column `place`, if these rows are the scales of groups, in 8 copies."""
        group = self.b.lshr(place, index(GROUP.bit_length() - 1))
        scale = self.b.bitcast(self.load(row, group, SHORT), HALF)
        return self.b.fpext(broadcast(self.b, scale, 8), ir.VectorType(FLOAT, 8))

    def byte_width(self) -> Any:
        """The number of bytes in a row."""
        return self.b.mul(self.width, index(self.dtype.itemsize))


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


def prefetch(b: Any, pointer: Any) -> None:
    """Fetch the cache line of an address into the second-level cache. The address may lie outside of any array."""
    kind = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), INT, INT, INT])
    read, second_level, data = (ir.Constant(INT, value) for value in (0, 2, 1))
    b.call(declared(b, kind, "llvm.prefetch.p0"), [pointer, read, second_level, data])


def add_up(b: Any, vectors: Sequence[Any], add: Callable[[Any, Any, Any], Any]) -> Any:
    """The sums of the elements of 1, 2 or 4 vectors, as a vector. `add` emits an addition of two vectors.

    The upper half of each vector is added to its lower half, until one number is left. Halves of two vectors are added
    by one instruction, which gives the same sums.
    """
    count, size = vectors[0].type.count, vectors[0].type.count
    while size > 1:
        parts = [range(start, start + size // 2) for start in range(0, vectors[0].type.count, size)]
        lower = [n for part in parts for n in part]
        upper = [n + size // 2 for n in lower]
        if len(vectors) == 1:
            vectors = [add(b, *(shuffle(b, vectors[0], places) for places in (lower, upper)))]
        else:
            halves = [[*places, *(count + n for n in places)] for places in (lower, upper)]
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [add(b, *(shuffle(b, v, places, w) for places in halves)) for v, w in pairs]
        size //= 2
    return vectors[0]


def constant_vector(kind: Any, value: float, count: int) -> Any:
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
