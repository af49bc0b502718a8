"""Compiled functions compute what Python computes on NumPy's arrays."""

from typing import NamedTuple

import numpy as np
import pytest

from gpt2cli.inference.cpu.compiler.functions import called, emitted, inlined
from gpt2cli.inference.cpu.compiler.values import Number, convert
from tests.inference.cpu.running import Known, run_compiled


def both(function, *arrays):
    """Run a function compiled and in Python, each on copies of the arrays; compare all arrays afterwards."""
    mine, theirs = ([a.copy() if isinstance(a, np.ndarray) else a for a in arrays] for _ in range(2))
    run_compiled(function, *mine)
    function(*theirs)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def division(x, y, out):
    for i in range(len(x)):
        out[i, 0] = x[i] // y[i]
        out[i, 1] = x[i] % y[i]
        out[i, 2] = -(-x[i] // 4)


def test_division_rounds_down_as_in_python():
    x, y = (a.ravel().astype(np.int64) for a in np.meshgrid(range(-9, 10), [-4, -3, -1, 1, 2, 7]))
    both(division, x, y, np.zeros((len(x), 3), np.int64))


def branches(x, out):
    for i in range(len(x)):
        if (x[i] > 2 and x[i] < 5) or x[i] == 7:
            out[i] = 1
        elif not x[i] < 0:
            out[i] = 2 if x[i] > 8 else 3
        else:
            out[i] = min(x[i], -3, -x[i]) + max(1, abs(-2))


def test_branches_and_conditions():
    both(branches, np.arange(-10, 12), np.zeros(22, np.int64))


def loops(out):
    n = 0
    while n < 20:
        n += 3
    out[0] = n
    for i in range(10, 0, -3):
        out[1] += i
    for i in range(3, 11, 4):
        for k in (1, 5):
            out[2] += i * k
    for i in range(5, 5):
        out[3] = i


def test_loops():
    both(loops, np.zeros(4, np.int64))


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


class Pair(NamedTuple):
    values: np.ndarray
    scale: np.ndarray


@called
def scaled(pair, out, first, last):
    for i in range(first, last):
        for c in range(pair.values.shape[1]):
            out[i, c] = np.float32(pair.values[i, c]) * pair.scale[i]


def test_called_functions_take_tuples_parts_and_views():
    def halves(pair, out):
        m = out.shape[0]
        scaled(pair, out, 0, m // 2)
        scaled(Pair(pair.values[m // 2 :], pair.scale[m // 2 :]), out[m // 2 :], 0, m - m // 2)
        row = out[0].view(np.int32)
        row[0] = row[0] | 1 << 31

    values = np.arange(-10, 14, dtype=np.int8).reshape(6, 4)
    scale, out = np.linspace(1, 2, 6).astype(np.float32), np.zeros((6, 4), np.float32)
    run_compiled(halves, Pair(values, scale), out)
    expected = values * scale[:, None]
    expected[0, 0] = -abs(expected[0, 0])
    np.testing.assert_array_equal(out, expected)


@emitted
def doubled(b, number):
    x = convert(b, number, np.dtype(np.float32)).llvm
    return Number(np.dtype(np.float32), b.fadd(x, x))


def test_functions_that_emit_instructions():
    def twice(x):
        for i in range(len(x)):
            x[i] = doubled(x[i])

    x = np.arange(5, dtype=np.float32)
    run_compiled(twice, x)
    assert x.tolist() == [0, 2, 4, 6, 8]


def test_what_is_known_is_computed_during_compilation():
    def known(x, kind, count):
        if x.dtype == kind:
            for i in range(count):
                x[i] = np.float32(1 / 3) if count > 2 else nonsense  # noqa: F821

    x = np.zeros(3, np.float32)
    run_compiled(known, x, np.float32, Known(3))
    assert x.tolist() == [np.float32(1 / 3)] * 3


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


def test_what_cannot_be_compiled_is_named():
    def strange(x):
        x[0] = [1, 2]

    with pytest.raises(TypeError, match=r"\[1, 2\] cannot be compiled"):
        run_compiled(strange, np.zeros(1))
