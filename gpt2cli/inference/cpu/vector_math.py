"""Functions of vectors of fp32, emitted as LLVM instructions. The order of every sum is fixed.

Loops that are compiled in several places must give the same bits in all of them. So these instructions carry the flag
"contract" alone, which lets a processor multiply and add at once, and not the flags that let LLVM reorder sums. The
functions take single numbers, too.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from gpt2cli.inference.cpu.compiler.emission import declared
from gpt2cli.inference.cpu.compiler.values import IN_ORDER
from gpt2cli.inference.cpu.llvm_simd import FLOAT, INDEX, INT, broadcast, shuffle
from gpt2cli.inference.cpu.processor import LANES

VECTOR = ir.VectorType(FLOAT, LANES)
ZERO = ir.Constant(VECTOR, None)


def add(b: Any, x: Any, y: Any) -> Any:
    return b.fadd(x, y, flags=IN_ORDER)


def multiply(b: Any, x: Any, y: Any) -> Any:
    return b.fmul(x, y, flags=IN_ORDER)


def multiply_add(b: Any, x: Any, y: Any, total: Any) -> Any:
    """x * y + total."""
    return add(b, multiply(b, x, y), total)


def maximum(b: Any, x: Any, y: Any) -> Any:
    """The larger one; y if x is NaN."""
    return b.select(b.fcmp_ordered(">", x, y, flags=IN_ORDER), x, y)


def exponential(b: Any, x: Any) -> Any:
    """e^x, correct to one or two units in the last place.

    e^x = 2^n e^f with an integer n and |f| <= 0.35. e^f is its Taylor series.
    """
    x = b.select(b.fcmp_ordered("<", x, real(x, -87), flags=IN_ORDER), real(x, -87), x)  # NaN stays NaN
    x = b.select(b.fcmp_ordered(">", x, real(x, 88), flags=IN_ORDER), real(x, 88), x)
    n = call(b, "rint", multiply(b, x, real(x, 1 / math.log(2))))
    # ln 2 in two parts, so that the first product is exact
    f = multiply_add(b, n, real(x, 2.12194440e-4), multiply_add(b, n, real(x, -0.693359375), x))
    series = real(x, 1 / 5040)
    for k in (720, 120, 24, 6, 2, 1, 1):
        series = multiply_add(b, series, f, real(x, 1 / k))
    whole = ir.VectorType(INT, x.type.count) if isinstance(x.type, ir.VectorType) else INT
    exponent = b.add(b.fptosi(n, whole), constant(whole, 127))  # the exponent in fp32's bits is n + 127
    return multiply(b, series, b.bitcast(b.shl(exponent, constant(whole, 23)), x.type))


def gelu(b: Any, x: Any) -> Any:
    """GELU in its tanh form (Hendrycks & Gimpel 2016), where 1 + tanh(u) is 2 / (1 + exp(-2 u))."""
    cube = multiply(b, multiply(b, x, x), x)
    u = multiply(b, real(x, -2 * math.sqrt(2 / math.pi)), multiply_add(b, real(x, 0.044715), cube, x))
    return b.fdiv(x, add(b, real(x, 1), exponential(b, u)), flags=IN_ORDER)


def total(b: Any, vectors: list[Any], combine: Callable[[Any, Any, Any], Any] = add) -> Any:
    """The sum, or another combination, of all elements of these vectors, whose number is a power of two."""
    while len(vectors) > 1:
        half = len(vectors) // 2
        vectors = [combine(b, x, y) for x, y in zip(vectors[:half], vectors[half:], strict=True)]
    vector = vectors[0]
    while vector.type.count > 1:
        half = vector.type.count // 2
        vector = combine(b, shuffle(b, vector, range(half)), shuffle(b, vector, range(half, 2 * half)))
    return b.extract_element(vector, ir.Constant(INT, 0))


def sums_of_vectors(b: Any, vectors: list[Any]) -> Any:
    """The sums of the elements of LANES vectors, as a vector. Each sum has the same order."""
    # adding the halves of two vectors gives one vector with partial sums of both; which sum lands where is followed
    parts = [(vector, [number] * LANES) for number, vector in enumerate(vectors)]
    for first, second in _halves():
        paired = []
        for (x, of_x), (y, of_y) in zip(parts[::2], parts[1::2], strict=True):
            owners = of_x + of_y
            paired.append((add(b, shuffle(b, x, first, y), shuffle(b, x, second, y)), [owners[i] for i in first]))
        parts = paired
    ((vector, owners),) = parts
    return shuffle(b, vector, [owners.index(number) for number in range(LANES)])


def _halves() -> list[tuple[list[int], list[int]]]:
    """For each step, which elements of two vectors are added to which others, so that one vector remains.

    The first two steps stay within parts of four numbers, which processors shuffle fastest.
    """
    fours = range(0, LANES, 4)
    steps = [
        [four + place for four in fours for place in places]
        for places in ((0, LANES, 1, LANES + 1), (0, 1, LANES, LANES + 1))
    ]
    pairs = [(first, [place + 2 for place in first]) for first in steps]
    distance = LANES // 2
    while distance >= 4:
        first = [place for place in range(2 * LANES) if place % (2 * distance) < distance]
        pairs.append((first, [place + distance for place in first]))
        distance //= 2
    return pairs


def in_range(b: Any, place: Any, end: Any) -> Any:
    """For each of LANES numbers from `place` on, whether it is less than `end`."""
    steps = ir.Constant(ir.VectorType(INT, LANES), list(range(LANES)))
    return b.icmp_signed("<", steps, broadcast(b, b.trunc(b.sub(end, place), INT), LANES))


def load(b: Any, pointer: Any, place: Any) -> Any:
    """A vector from a pointer to numbers in fp32, or to bits of fp16, which are converted."""
    at = b.gep(pointer, [place])
    if pointer.type.pointee == FLOAT:
        return b.load(b.bitcast(at, VECTOR.as_pointer()), align=4)
    halves = b.load(b.bitcast(at, ir.VectorType(ir.HalfType(), LANES).as_pointer()), align=2)
    return b.fpext(halves, VECTOR)


def load_until(b: Any, pointer: Any, place: Any, end: Any) -> Any:
    """As `load`, of fp32, but numbers from place `end` on are 0 and are not read."""
    at = b.bitcast(b.gep(pointer, [place]), VECTOR.as_pointer())
    mask = in_range(b, place, end)
    kind = ir.FunctionType(VECTOR, [at.type, INT, mask.type, VECTOR])
    function = declared(b, kind, f"llvm.masked.load.v{LANES}f32.p0v{LANES}f32")
    return b.call(function, [at, ir.Constant(INT, 4), mask, ZERO])


def store(b: Any, vector: Any, pointer: Any, place: Any) -> None:
    """Write a vector of fp32."""
    b.store(vector, b.bitcast(b.gep(pointer, [place]), vector.type.as_pointer()), align=4)


def call(b: Any, name: str, *values: Any) -> Any:
    """One of LLVM's functions of numbers or of vectors."""
    kind = values[0].type
    suffix = f"v{kind.count}f32" if isinstance(kind, ir.VectorType) else "f32"
    function = declared(b, ir.FunctionType(kind, [kind] * len(values)), f"llvm.{name}.{suffix}")
    return b.call(function, values)


def real(like: Any, value: float) -> Any:
    """A constant of the type of `like`."""
    return constant(like.type, float(np.float32(value)))


def constant(kind: Any, value: Any) -> Any:
    if isinstance(kind, ir.VectorType):
        return ir.Constant(kind, [ir.Constant(kind.element, value)] * kind.count)
    return ir.Constant(kind, value)


class Loop:
    """Emits a loop over `at` from `start` to before `end`. Values pass from one iteration to the next.

    The loop may have no iteration. Within `with`, `before` are the values of this iteration, and `after` receives
    those of the next. After it, `results` are the last ones.
    """

    def __init__(self, b: Any, start: Any, end: Any, step: Any, initial: list[Any]) -> None:
        self.b, self.start, self.end, self.step, self.initial = b, start, end, step, initial
        self.results: list[Any] = []

    def __enter__(self) -> "Loop":
        b = self.b
        self._entry, self._body, self._done = b.block, b.append_basic_block("loop"), b.append_basic_block("done")
        b.cbranch(b.icmp_signed("<", self.start, self.end), self._body, self._done)
        b.position_at_end(self._body)
        self.at, self.before = b.phi(INDEX), [b.phi(value.type) for value in self.initial]
        return self

    def after(self, values: list[Any]) -> None:
        self._after = values

    def __exit__(self, *exception: object) -> None:
        b, last = self.b, self.b.block
        following = b.add(self.at, self.step)
        b.cbranch(b.icmp_signed("<", following, self.end), self._body, self._done)
        self.at.add_incoming(self.start, self._entry)
        self.at.add_incoming(following, last)
        b.position_at_end(self._done)
        self.results = [b.phi(value.type) for value in self.initial]
        for before, result, initial, value in zip(self.before, self.results, self.initial, self._after, strict=True):
            before.add_incoming(initial, self._entry)
            before.add_incoming(value, last)
            result.add_incoming(initial, self._entry)
            result.add_incoming(value, last)
