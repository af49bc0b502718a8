"""Products of one row or a few rows of activations and a block of outputs, as LLVM instructions.

Every sum of a row and an output is computed by the same additions in the same order, whatever the number of rows. So a
row's results are bitwise the same alone and among others. The order of a sum of fp32:

    chain 0    w[0] x[0] + w[2] x[2] + w[4] x[4] ...     w[n], x[n]: the vectors of step n; in 4 bits, a group's sum
    chain 1    w[1] x[1] + w[3] x[3] + w[5] x[5] ...
    sum        chain 0 + chain 1, then the upper half of this vector to the lower half, until one number is left

The sums of weights in 8 bits are integers, which are exact in any order.

One row: memory limits the speed. The weights are read in the order in which they lie in memory, because a processor
fetches a single stream ahead of its use. (Several outputs at a time, each a stream, take twice as long, and explicit
prefetching is slower too.) The two chains are added to in turn, so that no addition waits for the one before it.

Few rows: arithmetic limits the speed. A tile has 4 rows and OUTPUTS outputs, so that each vector that was loaded and
converted is used several times. The sums of one chain fill the registers, so the chains are computed one after the
other. Meanwhile, the next block of outputs is fetched into the second-level cache.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from gpt2cli.inference.cpu.compiler.emission import steps, variable
from gpt2cli.inference.cpu.compiler.functions import emitted
from gpt2cli.inference.cpu.compiler.values import INDEX as WHOLE
from gpt2cli.inference.cpu.compiler.values import Array, Number, Value, convert
from gpt2cli.inference.cpu.epilogue import emit_epilogue
from gpt2cli.inference.cpu.llvm_simd import (
    BYTE,
    FLOAT,
    INDEX,
    INT,
    SHORT,
    WEIGHTS_PER_STEP,
    MatrixRows,
    add_up,
    index,
    multiply_add,
    multiply_pairs,
    prefetch,
)
from gpt2cli.inference.cpu.packed_layout import BLOCK_OUTPUTS, WIDTH_MULTIPLE, Matrix
from gpt2cli.inference.cpu.processor import LANES

OUTPUTS = 4 if LANES == 16 else 2
"""Outputs of a tile of several rows. With 16 lanes, processors have 32 registers for vectors, else often 16."""
CACHE_LINE = 64


@emitted
def multiply_block(
    b: Any, matrix: Matrix, first: Value, x: Array, sizes: Array, r: Value, rows: int, y: Array, epilogue: Number
) -> None:
    """Multiply x[r : r + rows] by the BLOCK_OUTPUTS outputs from `first` on. The results get into y (m, out).

    `rows` is 1 or TILE_ROWS, and known. x (m, in) is fp32, or int16 with `sizes` (m,), what one unit of each row stands
    for, for weights in 8 and 4 bits. `epilogue` is STORE, GELU or ADD.
    """
    first, r, epilogue = (convert(b, number, WHOLE).llvm for number in (first, r, epilogue))
    dtype = matrix.weights.dtype
    memory = b.bitcast(variable(b, ir.ArrayType(FLOAT, rows * BLOCK_OUTPUTS)), FLOAT.as_pointer())
    outputs = 1 if rows == 1 else OUTPUTS
    with steps(b, index(0), index(BLOCK_OUTPUTS), outputs) as (o, _):
        at = b.add(first, o)
        tile = _Tile(b, MatrixRows(b, matrix.weights, at), MatrixRows(b, matrix.groups, at), MatrixRows(b, x, r))
        if rows > 1:
            tile.fetch_ahead(rows, b.sdiv(x.sizes[0], index(rows)), b.sdiv(r, index(rows)), o)
        for t, vector in enumerate(tile.products(outputs, rows)):
            target = b.gep(memory, [b.add(o, index(t * BLOCK_OUTPUTS))])
            b.store(vector, b.bitcast(target, vector.type.as_pointer()), align=4)
    factors = b.gep(matrix.scale.data, [first]) if dtype == "int8" else None
    units = None if x.dtype == "float32" else b.gep(sizes.data, [r])
    offsets = b.gep(matrix.bias.data, [first])
    emit_epilogue(b, rows, memory, units, factors, offsets, MatrixRows(b, y, r), first, epilogue)


class _Tile:
    """Emits the sums of some rows of activations and some rows of weights."""

    def __init__(self, b: Any, weights: MatrixRows, groups: MatrixRows, x: MatrixRows) -> None:
        self.b, self.dtype = b, weights.dtype
        self.weights, self.groups, self.x = weights, groups, x
        self.chains = 1 if self.dtype == "int8" else 2
        self.ahead: Any = None

    def fetch_ahead(self, rows: int, tiles: Any, tile: Any, o: Any) -> None:
        """Let the following loops fetch their share of the next block: this is number `tile` of `tiles`, output o."""
        b = self.b
        byte_width = self.weights.byte_width()
        self.per_turn = _bytes_per_turn(self.dtype, self.chains)
        self.pace = b.sdiv(index(self.per_turn), tiles)
        turns = b.mul(b.sdiv(self.x.width, index(WIDTH_MULTIPLE)), index(self.chains))
        unit = b.add(b.mul(tile, index(BLOCK_OUTPUTS // OUTPUTS)), b.sdiv(o, index(OUTPUTS)))
        block = b.mul(byte_width, b.sub(index(BLOCK_OUTPUTS), o))  # from this tile's first output to the next block
        share = b.mul(unit, b.mul(turns, self.pace))
        self.ahead = b.gep(b.bitcast(self.weights.start, BYTE.as_pointer()), [b.add(block, share)])

    def products(self, outputs: int, rows: int) -> list[Any]:
        """For each row of activations, a vector of `outputs` sums."""
        b = self.b
        if rows == 1:
            chains = self._loop(outputs, rows, range(self.chains))
        else:
            chains = [sums for c in range(self.chains) for sums in self._loop(outputs, rows, [c])]
        add = b.add if self.dtype == "int8" else b.fadd
        sums = [add(*pair) for pair in zip(*chains, strict=True)] if self.chains == 2 else chains[0]
        vectors = [add_up(b, sums[t::rows]) for t in range(rows)]
        real = ir.VectorType(FLOAT, outputs)
        return [b.sitofp(vector, real) if self.dtype == "int8" else vector for vector in vectors]

    def _loop(self, outputs: int, rows: int, chains: Sequence[int]) -> list[list[Any]]:
        """Emit the loop over the length of the rows. Returns the vectors of each chain: those of output 0 first."""
        b, step = self.b, WEIGHTS_PER_STEP[self.dtype]
        before, body, after = b.block, b.append_basic_block("products"), b.append_basic_block("sums")
        b.branch(body)
        b.position_at_end(body)
        at, kind = b.phi(INDEX), self._sum_type()
        phis = [[b.phi(kind) for _ in range(outputs * rows)] for _ in chains]
        sums = {c: list(vectors) for c, vectors in zip(chains, phis, strict=True)}
        if self.ahead is not None:
            self._fetch(at)
        for n in range(WIDTH_MULTIPLE // step):
            if (chain := n % self.chains) in sums:
                self._step(sums[chain], b.add(at, index(n * step)), outputs, rows)
        following = b.add(at, index(WIDTH_MULTIPLE))
        at.add_incoming(index(0), before)
        at.add_incoming(following, b.block)
        for c, vectors in zip(chains, phis, strict=True):
            for phi, new in zip(vectors, sums[c], strict=True):
                phi.add_incoming(ir.Constant(kind, None), before)
                phi.add_incoming(new, b.block)
        b.cbranch(b.icmp_signed("<", following, self.x.width), body, after)
        b.position_at_end(after)
        if self.ahead is not None:
            turns = b.sdiv(self.x.width, index(WIDTH_MULTIPLE))
            self.ahead = b.gep(self.ahead, [b.mul(turns, self.pace)])
        return [sums[c] for c in chains]

    def _fetch(self, at: Any) -> None:
        b = self.b
        place = b.mul(b.sdiv(at, index(WIDTH_MULTIPLE)), self.pace)
        for n in range(0, self.per_turn, CACHE_LINE):
            prefetch(b, b.gep(self.ahead, [b.add(place, index(n))]))

    def _step(self, sums: list[Any], place: Any, outputs: int, rows: int) -> None:
        """Add the products of one step to the sums."""
        b = self.b
        x = [self._activations(t, place) for t in range(rows)]
        for o in range(outputs):
            w = self.weights.weights(o, place)
            scale = self.groups.group_scales(o, place) if self.dtype == "uint8" else None
            for t in range(rows):
                n = o * rows + t
                if self.dtype == "int8":
                    sums[n] = b.add(sums[n], multiply_pairs(b, w[0], x[t][0]))
                elif scale is None:
                    sums[n] = multiply_add(b, w[0], x[t][0], sums[n])
                else:
                    group = b.add(*(multiply_pairs(b, v, u) for v, u in zip(w, x[t], strict=True)))
                    sums[n] = multiply_add(b, b.sitofp(group, self._sum_type()), scale, sums[n])

    def _activations(self, t: int, place: Any) -> list[Any]:
        """The activations of row t in one step, as vectors like those of the weights."""
        if self.x.dtype == "float32":
            return [self.x.load(t, place, FLOAT, LANES)]
        count = 16 if self.dtype == "uint8" else 2 * LANES
        parts = range(0, WEIGHTS_PER_STEP[self.dtype], count)
        return [self.x.load(t, self.b.add(place, index(n)), SHORT, count) for n in parts]

    def _sum_type(self) -> Any:
        if self.dtype == "int8":
            return ir.VectorType(INT, LANES)
        return ir.VectorType(FLOAT, 8 if self.dtype == "uint8" else LANES)


def _bytes_per_turn(dtype: Any, chains: int) -> int:
    """Bytes that a loop over one chain of a tile must fetch in one turn if the tile has the only rows."""
    half_bytes = 1 if dtype == "uint8" else 2 * dtype.itemsize
    return WIDTH_MULTIPLE * half_bytes // 2 * OUTPUTS // chains
