"""What is compiled computes what Python and NumPy compute."""

from typing import NamedTuple

import numpy as np
import pytest

from gpt2cli.inference.cpu.compiler.emission import for_range, variable
from gpt2cli.inference.cpu.compiler.functions import called, emitted, inlined
from gpt2cli.inference.cpu.compiler.values import INDEX, Number, indexes
from tests.inference.cpu.running import Known, run_compiled

INTEGERS = np.array([-100, -7, -1, 0, 1, 2, 5, 100])
TYPES = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64]


class Pair(NamedTuple):
    first: object
    second: object


def check(function, *arguments):
    """Run a function as Python does and compiled, and compare what it leaves in its arrays."""
    ours, pythons = ([x.copy() if isinstance(x, np.ndarray) else x for x in arguments] for _ in range(2))
    run_compiled(function, *ours)
    with np.errstate(all="ignore"):
        function(*pythons)
    for found, expected in zip(ours, pythons, strict=True):
        np.testing.assert_array_equal(found, expected)


def arithmetic(x, y, out):
    for i in range(len(x)):
        a, b = x[i], y[i]
        out[i, 0], out[i, 1], out[i, 2] = a + b, a - b, a * b
        out[i, 3], out[i, 4] = min(a, b), max(a, b)
        out[i, 5] = -a if a != b else a


def whole_numbers(x, y, out):
    for i in range(len(x)):
        a, b = x[i], y[i]
        out[i, 0], out[i, 1] = a // b, a % b
        out[i, 2], out[i, 3], out[i, 4] = a & b, a | b, a ^ b
        out[i, 5], out[i, 6] = a << 1, a >> 2


def floats(x, y, out):
    for i in range(len(x)):
        a, b = x[i], y[i]
        out[i, 0] = a / b
        out[i, 1], out[i, 2], out[i, 3] = np.sqrt(a), np.rint(a), np.floor(a)
        out[i, 4] = np.fabs(a)


def comparisons(x, y, out):
    for i in range(len(x)):
        a, b = x[i], y[i]
        out[i, 0], out[i, 1], out[i, 2] = a < b, a <= b, a > b
        out[i, 3], out[i, 4], out[i, 5] = a >= b, a == b, a != b
        out[i, 6], out[i, 7] = a < b and a != 5, a < b or not a >= 5
        out[i, 8] = 3 if a > b else 4


def pairs(dtype, positive=False):
    values = INTEGERS.astype(dtype)
    if np.dtype(dtype).kind == "f":
        values = np.concatenate((values / 3, [np.nan, np.inf])).astype(dtype)
    y = np.tile(values, len(values))
    return np.repeat(values, len(values)), np.where(y == 0, np.array(3, dtype), y) if positive else y


@pytest.mark.parametrize("dtype", TYPES)
def test_arithmetic_is_numpys(dtype):
    x, y = pairs(dtype)
    check(arithmetic, x, y, np.zeros((len(x), 6), dtype))
    check(comparisons, x, y, np.zeros((len(x), 9), np.int64))


@pytest.mark.parametrize("dtype", [dtype for dtype in TYPES if np.dtype(dtype).kind != "f"])
def test_division_of_whole_numbers_rounds_down_as_pythons(dtype):
    x, y = pairs(dtype, positive=True)
    check(whole_numbers, x, y, np.zeros((len(x), 7), dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_of_floats_are_numpys(dtype):
    x, y = pairs(dtype)
    check(floats, x, y, np.zeros((len(x), 5), dtype))


@pytest.mark.parametrize("second", TYPES)
@pytest.mark.parametrize("first", TYPES)
def test_numbers_are_converted_as_numpy_does(first, second):
    def convert(x, out):
        for i in range(len(x)):
            out[i] = x[i]

    values = INTEGERS[INTEGERS >= 0] if "u" in (np.dtype(first).kind, np.dtype(second).kind) else INTEGERS
    check(convert, values.astype(first), np.zeros(len(values), second))


def test_a_constant_takes_the_type_of_the_other_number():
    def scaled(x, n, out):
        out[0], out[1], out[2] = x[0] * 0.1, n / 2, n * 0.5
        out[3] = float(n) + np.float32(1)
        out[4] = int(x[0] * 2) + np.int64(1)

    out = np.zeros(5)
    run_compiled(scaled, np.array([1.3], np.float32), 3, out)
    assert out.tolist() == [np.float32(1.3) * np.float32(0.1), 1.5, 1.5, 4, 3]


def test_mixed_types_become_the_type_that_holds_both():
    def mixed(a, b, c, out):
        out[0], out[1], out[2] = a[0] + b[0], a[0] * c[0], b[0] + c[0]

    out = np.zeros(3)
    run_compiled(mixed, np.array([200], np.uint8), np.array([-100], np.int8), np.array([0.5], np.float32), out)
    assert out.tolist() == [100, 100, -99.5]


def test_loops_and_branches_are_pythons():
    def count(limits, out):
        n = 0
        for i in range(10, -1, -3):
            for j in range(i, limits[0]):
                if j % 3 == 0:
                    n += 1
                elif j % 3 == 1:
                    n += 10
                else:
                    n += 100
        out[0] = n
        while n > limits[1]:
            n //= 2
        out[1] = n
        for step in (1, 2, 4):
            out[2] += step * limits[0]
        for i in range(5, 5):
            out[3] = i
        pass

    check(count, np.array([12, 7]), np.zeros(4, np.int64))


@inlined
def sign(x):
    """A function that returns in several places."""
    if x < 0:
        return -1
    if x > 0:
        return 1
    return 0


@inlined
def smaller_first(x, y):
    if x <= y:
        return x, y
    return y, x


@called
def write_sum(out, place, x, y):
    if place >= len(out):
        return
    out[place] = x + y


@inlined
def swapped(pair):
    return Pair(pair.second, pair.first)


def test_functions_return_where_python_does():
    def use(x, out):
        for i in range(len(x)):
            out[i, 0] = sign(x[i])
            low, high = smaller_first(x[i], 2)
            out[i, 1], out[i, 2] = low, high
            write_sum(out[i], 3, *smaller_first(x[i], 5))
            write_sum(out[i], 100, x[i], x[i])

    check(use, INTEGERS, np.zeros((len(INTEGERS), 4), np.int64))


def test_tuples_and_parts_of_arrays_are_views():
    def use(pair, out):
        other = swapped(pair)
        rows, n = other.first, out.shape[1]
        rows[1, 2:][0] = 7
        part = rows[1:]
        part[0, 0], part[1][1] = n, len(part)
        last = rows[2] if len(rows) > 5 else other.second
        last[0] += 1
        sizes = (1, 2, 3)[1:]
        out[0, 0] = sizes[0] * 10 + sizes[-1]
        bits = other.second.view(np.int32)
        bits[1] = 0x3F800000
        rows[2, 3] = 9

    rows, row, out = np.zeros((3, 4), np.float32), np.zeros(4, np.float32), np.zeros((2, 6))
    run_compiled(use, Pair(row, rows), out)
    expected = [[0, 0, 0, 0], [6, 0, 7, 0], [0, 2, 0, 9]]
    assert (rows.tolist(), row.tolist(), out[0, 0]) == (expected, [1, 1, 0, 0], 23)


def test_what_is_known_is_computed_during_compilation():
    """So the branch for other types need not make sense for this one."""

    def use(x, kind, out):
        if x.dtype == np.float32 and kind == 2:
            out[0] = x[0]
        else:
            out[0] = x.nonsense
        out[1] = 1 if kind > 1 else x.nonsense
        out[2] = (kind * 2 if not kind >= 3 else 0) - -kind

    out = np.zeros(3)
    run_compiled(use, np.ones(1, np.float32), Known(2), out)
    assert out.tolist() == [1, 1, 6]
    with pytest.raises(TypeError, match="nonsense"):
        run_compiled(use, np.ones(1, np.float64), Known(2), out)


@emitted
def triangular(b, n):
    """The sum of the numbers before n."""
    [n] = indexes(b, n)
    total = variable(b, n.type)
    b.store(n.type(0), total)
    with for_range(b, n.type(0), n, 1) as (place, count):
        b.store(b.add(b.load(total), b.sdiv(b.add(place, count), n.type(2))), total)
    return Number(INDEX, b.load(total))


def test_emitted_functions_write_instructions():
    def use(out):
        for i in range(len(out)):
            out[i] = triangular(i)

    out = np.zeros(6, np.int64)
    run_compiled(use, out)
    assert out.tolist() == [0, 0, 1, 3, 6, 10]
    with pytest.raises(TypeError, match="triangular can only be called by a compiled function"):
        triangular(3)


def test_sums_of_floats_keep_their_order():
    def total(x, out):
        for i in range(len(x)):
            out[0] += x[i]

    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    check(total, x, np.zeros(1, np.float32))


@inlined
def first_above(x, limit):
    for i in range(len(x)):
        if x[i] > limit:
            return i, x[i]
    return -1, np.float32(0)


def test_a_function_returns_from_within_a_loop():
    def search(x, out):
        place, value = first_above(x, 3)
        out[0], out[1] = np.float32(place), value
        place, value = first_above(x, 9)
        out[2], out[3] = np.float32(place), value

    out = np.zeros(4, np.float32)
    run_compiled(search, np.array([1, 2, 5, 4], np.float32), out)
    assert out.tolist() == [2, 5, -1, 0]


@called
def scaled(pair, out, first, last):
    for i in range(first, last):
        for c in range(pair.first.shape[1]):
            out[i, c] = np.float32(pair.first[i, c]) * pair.second[i]


def test_called_functions_take_tuples_parts_and_views():
    def halves(pair, out):
        m = out.shape[0]
        scaled(pair, out, 0, m // 2)
        scaled(Pair(pair.first[m // 2 :], pair.second[m // 2 :]), out[m // 2 :], 0, m - m // 2)
        row = out[0].view(np.int32)
        row[0] = row[0] | -(1 << 31)

    values = np.arange(-10, 14, dtype=np.int8).reshape(6, 4)
    scale, out = np.linspace(1, 2, 6).astype(np.float32), np.zeros((6, 4), np.float32)
    run_compiled(halves, Pair(values, scale), out)
    expected = values * scale[:, None]
    expected[0, 0] = -abs(expected[0, 0])
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "int16", "uint8", "uint16", "int32", "int64"])
@pytest.mark.parametrize("to", [np.float32, np.int32, np.int16])
def test_numbers_are_converted_as_by_numpy(dtype, to):
    def converted(x, out, to):
        for i in range(len(x)):
            out[i] = to(x[i])

    x = np.array([0, 1, 7, 100, 127] + ([] if dtype.startswith("u") else [-1, -100]), dtype)
    out = np.zeros(len(x), to)
    run_compiled(converted, x, out, to)
    np.testing.assert_array_equal(out, x.astype(to))


def test_numbers_count_as_conditions_where_python_has_them():
    def use(x, n, out):
        for i in range(len(x)):
            out[i, 0] = 1 if x[i] else 2
            out[i, 1] = not x[i]
            if n[i]:
                out[i, 2] = 1
            out[i, 3] = (n[i] > 0) ^ (x[i] > 0)

    x = np.array([0, 0.5, -0.0, np.nan], np.float32)
    check(use, x, np.array([3, 0, -1, 256]), np.zeros((4, 4)))


def test_names_stand_for_arrays_and_tuples_too():
    def use(x, y, out):
        rows = x
        for i in range(4):
            limit: int = 2
            if i == limit:
                rows = y
            out[i] = rows[i]
        a, b = out
        pair = (a, b) if a < b else (b, a)
        out[0], out[1] = pair

    x, y, out = np.arange(4.0), np.arange(4.0) * 10, np.zeros(4)
    run_compiled(use, x, y, out)
    assert out.tolist() == [0, 1, 20, 30]


@inlined
def nothing_after_the_return(x):
    x[0] = 1
    if x.dtype == np.float32:
        return
        x[0] = 2
    x[0] = 3


def test_nothing_is_compiled_after_a_return():
    check(nothing_after_the_return, np.zeros(1, np.float32))
    check(nothing_after_the_return, np.zeros(1, np.float64))


def test_a_variable_takes_constants_that_it_can_hold():
    def use(x, out):
        whole, real = 1, 0.5
        whole = 300
        if x[0] > 0:
            whole, real = 2, 3
        sizes = (1, 2) + (3,)  # noqa: RUF005
        out[0], out[1], out[2], out[3] = whole, real, sizes[2], True

    check(use, np.array([1.0]), np.zeros(4))
    check(use, np.array([-1.0]), np.zeros(4))
