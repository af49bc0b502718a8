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
other. Meanwhile, the block that the thread computes next is fetched into the second-level cache.
"""

from typing import Any

from llvmlite import ir

from gpt2cli.inference.cpu import vector_math as vm
from gpt2cli.inference.cpu.compiler.emission import for_range, variable
from gpt2cli.inference.cpu.compiler.functions import emitted
from gpt2cli.inference.cpu.compiler.values import Array, Value, indexes
from gpt2cli.inference.cpu.epilogue import emit_epilogue
from gpt2cli.inference.cpu.llvm_simd import (
    BYTE,
    CACHE_LINE,
    FLOAT,
    INDEX,
    INT,
    SHORT,
    WEIGHTS_PER_STEP,
    MatrixRows,
    add_up,
    index,
    multiply_pairs,
    prefetch,
)
from gpt2cli.inference.cpu.packed_layout import BLOCK_OUTPUTS, WIDTH_MULTIPLE, Matrix
from gpt2cli.inference.cpu.processor import LANES

OUTPUTS = 4 if LANES == 16 else 2
"""Outputs of a tile of several rows. With 16 lanes, processors have 32 registers for vectors, else often 16."""
CHUNK = 512
"""Columns that a tile reads twice if there are two chains."""


@emitted
def multiply_block(
    b: Any,
    matrix: Matrix,
    first: Value,
    following: Value,
    x: Array,
    steps: Array,
    r: Value,
    rows: int,
    y: Array,
    epilogue: Value,
) -> None:
    """Multiply x[r : r + rows] by the BLOCK_OUTPUTS outputs from `first` on. The results get into y (m, out).

    `rows` is 1 or TILE_ROWS, and known during compilation. x (m, in) is fp32, or for weights in 8 and 4 bits int16 with
    `steps` (m,). `epilogue` is STORE, GELU or ADD. With several rows, the block from output `following` on is fetched.
    """
    first, following, r, epilogue = indexes(b, first, following, r, epilogue)
    dtype = matrix.weights.dtype
    sums = b.bitcast(variable(b, ir.ArrayType(FLOAT, rows * BLOCK_OUTPUTS)), FLOAT.as_pointer())
    outputs = 1 if rows == 1 else OUTPUTS
    with for_range(b, index(0), index(BLOCK_OUTPUTS), outputs) as (o, _):
        at = b.add(first, o)
        tile = _Tile(b, MatrixRows(b, matrix.weights, at), MatrixRows(b, matrix.groups, at), MatrixRows(b, x, r))
        if rows > 1:
            tile.fetch_ahead(b.sub(following, at), b.sdiv(x.sizes[0], index(rows)), b.sdiv(r, index(rows)), o)
        for t, vector in enumerate(tile.products(outputs, rows)):
            target = b.gep(sums, [b.add(o, index(t * BLOCK_OUTPUTS))])
            b.store(vector, b.bitcast(target, vector.type.as_pointer()), align=4)
    factors = b.gep(matrix.scale.data, [first]) if dtype == "int8" else None
    sizes = None if x.dtype == "float32" else b.gep(steps.data, [r])
    offsets = b.gep(matrix.bias.data, [first])
    emit_epilogue(b, rows, sums, sizes, factors, offsets, MatrixRows(b, y, r), first, epilogue)


class _Tile:
    """Emits the sums of some rows of activations and some rows of weights."""

    def __init__(self, b: Any, weights: MatrixRows, groups: MatrixRows, x: MatrixRows) -> None:
        self.b, self.dtype = b, weights.dtype
        self.weights, self.groups, self.x = weights, groups, x
        self.chains = 1 if self.dtype == "int8" else 2
        self.ahead: Any = None
        self.pace: Any = None

    def fetch_ahead(self, distance: Any, tiles: Any, tile: Any, o: Any) -> None:
        """Let the following loops fetch their share of the block that begins `distance` outputs from here.

        This is number `tile` of `tiles`, output o.
        """
        b = self.b
        self.pace = b.sdiv(index(_bytes_per_turn(self.dtype)), tiles)
        turns = b.sdiv(self.x.width, index(WIDTH_MULTIPLE))
        unit = b.add(b.mul(tile, index(BLOCK_OUTPUTS // OUTPUTS)), b.sdiv(o, index(OUTPUTS)))
        block = b.mul(self.weights.byte_width(), distance)
        share = b.mul(unit, b.mul(turns, self.pace))
        self.ahead = b.gep(b.bitcast(self.weights.start, BYTE.as_pointer()), [b.add(block, share)])

    def products(self, outputs: int, rows: int) -> list[Any]:
        """For each row of activations, a vector of `outputs` sums."""
        b = self.b
        kind = self._sum_type()
        zeros = [[ir.Constant(kind, None)] * (outputs * rows) for _ in range(self.chains)]
        chains = self._one_row(zeros) if rows == 1 else self._few_rows(zeros, outputs, rows)
        sums = [vm.add(b, *pair) for pair in zip(*chains, strict=True)] if self.chains == 2 else chains[0]
        add = _add_integers if self.dtype == "int8" else vm.add
        vectors = [add_up(b, sums[t::rows], add) for t in range(rows)]
        real = ir.VectorType(FLOAT, outputs)
        return [b.sitofp(vector, real) if self.dtype == "int8" else vector for vector in vectors]

    def _one_row(self, sums: list[list[Any]]) -> list[list[Any]]:
        """Add the products of one row and one output to `sums`, two turns at a time as long as there are two."""
        b, chains = self.b, range(self.chains)
        end = b.and_(self.x.width, index(-2 * WIDTH_MULTIPLE))
        sums = self._loop(sums, index(0), end, 2 * WIDTH_MULTIPLE, chains, 1)
        return self._loop(sums, end, self.x.width, WIDTH_MULTIPLE, chains, 1)

    def _few_rows(self, zeros: list[list[Any]], outputs: int, rows: int) -> list[list[Any]]:
        """The sums of a tile. A chunk of the rows stays in the first-level cache while both chains read it."""
        b = self.b
        places = [[variable(b, zero.type) for zero in chain] for chain in zeros]
        _store(b, zeros, places)
        with for_range(b, index(0), self.x.width, CHUNK) as (start, _):
            end = b.add(start, index(CHUNK))
            end = b.select(b.icmp_signed("<", end, self.x.width), end, self.x.width)
            for chain in range(self.chains):
                sums = [[b.load(place) for place in places[chain]]]
                sums = self._loop(sums, start, end, WIDTH_MULTIPLE, range(chain, chain + 1), rows)
                _store(b, sums, places[chain : chain + 1])
        return [[b.load(place) for place in chain] for chain in places]

    def _loop(
        self, sums: list[list[Any]], start: Any, end: Any, turn: int, chains: range, rows: int
    ) -> list[list[Any]]:
        """Add the products of columns `start` to `end` to the sums of these chains, `turn` columns at a time."""
        b, step = self.b, WEIGHTS_PER_STEP[self.dtype]
        before, head, body, after = b.block, *(b.append_basic_block(name) for name in ("head", "products", "sums"))
        b.branch(head)
        b.position_at_end(head)
        at = b.phi(INDEX)
        phis = [[b.phi(vector.type) for vector in chain] for chain in sums]
        b.cbranch(b.icmp_signed("<", at, end), body, after)
        b.position_at_end(body)
        added = [list(chain) for chain in phis]
        if self.ahead is not None:
            self._fetch(at, chains.start)
        for n in range(turn // step):
            if (chain := n % self.chains) in chains:
                self._step(added[chain - chains.start], b.add(at, index(n * step)), rows)
        for phi, first, following in (
            (at, start, b.add(at, index(turn))),
            *(places for chain in zip(phis, sums, added, strict=True) for places in zip(*chain, strict=True)),
        ):
            phi.add_incoming(first, before)
            phi.add_incoming(following, body)
        b.branch(head)
        b.position_at_end(after)
        return phis

    def _fetch(self, at: Any, chain: int) -> None:
        """Fetch a chain's share of what a turn must fetch."""
        b, share = self.b, _bytes_per_turn(self.dtype) // self.chains
        place = b.mul(b.sdiv(at, index(WIDTH_MULTIPLE)), self.pace)
        place = b.add(place, b.sdiv(b.mul(self.pace, index(chain)), index(self.chains)))
        for n in range(0, share, CACHE_LINE):
            prefetch(b, b.gep(self.ahead, [b.add(place, index(n))]))

    def _step(self, sums: list[Any], place: Any, rows: int) -> None:
        """Add the products of one step to the sums."""
        b = self.b
        x = [self._activations(t, place) for t in range(rows)]
        for o in range(len(sums) // rows):
            w = self.weights.weights(o, place)
            scale = self.groups.group_scales(o, place) if self.dtype == "uint8" else None
            for t in range(rows):
                n = o * rows + t
                if self.dtype == "int8":
                    sums[n] = b.add(sums[n], multiply_pairs(b, w[0], x[t][0]))
                elif scale is None:
                    sums[n] = vm.multiply_add(b, w[0], x[t][0], sums[n])
                else:
                    group = b.add(*(multiply_pairs(b, v, u) for v, u in zip(w, x[t], strict=True)))
                    sums[n] = vm.multiply_add(b, b.sitofp(group, self._sum_type()), scale, sums[n])

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


def _store(b: Any, values: list[list[Any]], places: list[list[Any]]) -> None:
    for chain, pointers in zip(values, places, strict=True):
        for value, pointer in zip(chain, pointers, strict=True):
            b.store(value, pointer)


def _add_integers(b: Any, x: Any, y: Any) -> Any:
    return b.add(x, y)


def _bytes_per_turn(dtype: Any) -> int:
    """Bytes that a tile must fetch in one turn of its loop if there are no other tiles for the same weights."""
    half_bytes = 1 if dtype == "uint8" else 2 * dtype.itemsize
    return WIDTH_MULTIPLE * half_bytes // 2 * OUTPUTS
