"""The values that a compiled function computes with, and the conversions between numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

IN_ORDER = ("contract",)
"""LLVM's flags for operations on floats: sums keep their order, but a product and a sum may be rounded once."""
INDEX = np.dtype(np.int64)
REAL = np.dtype(np.float32)
BOOL = np.dtype(np.bool_)
_LLVM_TYPES = {"f2": ir.HalfType(), "f4": ir.FloatType(), "f8": ir.DoubleType()}


@dataclass(frozen=True)
class Number:
    """A number of a type of NumPy, in a register."""

    dtype: np.dtype[Any]
    llvm: Any


@dataclass(frozen=True)
class Array:
    """A contiguous array: the pointer to its first number, and its sizes, int64."""

    dtype: np.dtype[Any]
    data: Any
    sizes: tuple[Any, ...]

    @property
    def shape(self) -> tuple[Number, ...]:
        return tuple(Number(INDEX, size) for size in self.sizes)


Value = Any
"""A Number, an Array, a tuple of values, or a constant: any other object of Python."""


def llvm_type(dtype: np.dtype[Any]) -> Any:
    """LLVM's type for a type of NumPy."""
    if dtype == BOOL:
        return ir.IntType(1)
    return _LLVM_TYPES[dtype.str[1:]] if dtype.kind == "f" else ir.IntType(8 * dtype.itemsize)


def is_constant(value: Value) -> bool:
    """Whether a value is known during compilation."""
    if isinstance(value, tuple):
        return all(map(is_constant, value))
    return not isinstance(value, Number | Array)


def constant(dtype: np.dtype[Any], value: float) -> Number:
    """A number that is known, as a register."""
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        raise OverflowError(f"{value} is no {dtype}")
    plain = float(np.float32(value)) if dtype == REAL else float(value) if dtype.kind == "f" else int(value)
    return Number(dtype, ir.Constant(llvm_type(dtype), plain))


def as_number(value: Value, like: np.dtype[Any] | None = None) -> Number:
    """A number or a constant as a Number: a constant takes the type `like`, or else int64 or float32."""
    if isinstance(value, Number):
        return value
    if isinstance(value, bool | np.bool_):
        return constant(BOOL, bool(value))
    if isinstance(value, np.generic):
        return constant(value.dtype, value.item())
    if isinstance(value, int):
        return constant(like if like is not None and like != BOOL else INDEX, value)
    if isinstance(value, float):
        return constant(like if like is not None and like.kind == "f" else REAL, value)
    raise TypeError(f"{value!r} is no number")


def convert(b: ir.IRBuilder, value: Value, dtype: np.dtype[Any]) -> Number:
    """A number in another type, as NumPy converts it. Floats become whole numbers by cutting."""
    number = as_number(value, dtype)
    before, to = number.dtype, llvm_type(dtype)
    if before == dtype:
        return number
    if dtype == BOOL:
        zero = ir.Constant(number.llvm.type, 0)
        found = (
            b.fcmp_unordered("!=", number.llvm, zero) if before.kind == "f" else b.icmp_signed("!=", number.llvm, zero)
        )
        return Number(BOOL, found)
    is_signed = before.kind == "i"
    if before.kind == "f" and dtype.kind == "f":
        return Number(dtype, (b.fpext if dtype.itemsize > before.itemsize else b.fptrunc)(number.llvm, to))
    if before.kind == "f":
        return Number(dtype, (b.fptoui if dtype.kind == "u" else b.fptosi)(number.llvm, to))
    if dtype.kind == "f":
        return Number(dtype, (b.sitofp if is_signed else b.uitofp)(number.llvm, to))
    if dtype.itemsize > before.itemsize or before == BOOL:
        return Number(dtype, (b.sext if is_signed else b.zext)(number.llvm, to))
    return Number(dtype, b.trunc(number.llvm, to) if dtype.itemsize < before.itemsize else number.llvm)


def indexes(b: ir.IRBuilder, *numbers: Value) -> list[Any]:
    """Whole numbers as registers of int64."""
    for number in numbers:
        if as_number(number).dtype.kind == "f":
            raise TypeError(f"{found(number)} is no whole number")
    return [convert(b, number, INDEX).llvm for number in numbers]


def common_type(left: Value, right: Value) -> np.dtype[Any]:
    """The type in which two numbers are computed. A constant takes the other's, a whole number that of a float."""
    if not isinstance(left, Number | np.generic):
        return as_number(right).dtype if _fits(left, right) else REAL
    if not isinstance(right, Number | np.generic):
        return as_number(left).dtype if _fits(right, left) else REAL
    first, second = as_number(left).dtype, as_number(right).dtype
    if (first.kind == "f") != (second.kind == "f"):
        return first if first.kind == "f" else second
    both = np.promote_types(first, second)
    if both.kind != first.kind and BOOL not in (first, second) and both.kind == "f":
        raise TypeError(f"no type holds all numbers of {first} and {second}")
    return both


def holds(dtype: np.dtype[Any], value: Value) -> bool:
    """Whether a variable of this type can take a value. Constants that are whole numbers fit into all types."""
    if isinstance(value, Number | np.generic):
        return np.can_cast(as_number(value).dtype, dtype, "safe")
    return isinstance(value, int) or (isinstance(value, float) and dtype.kind == "f")


def found(value: Value) -> str:
    """What a value is, for messages."""
    return str(value.dtype) if isinstance(value, Number | Array) else repr(value)


def _fits(constant_value: Any, other: Value) -> bool:
    """Whether a constant can take the type of the other number."""
    return not isinstance(constant_value, float) or as_number(other).dtype.kind == "f"


def flatten(value: Value) -> list[Any]:
    """The registers of a value."""
    if isinstance(value, Number):
        return [value.llvm]
    if isinstance(value, Array):
        return [value.data, *value.sizes]
    if isinstance(value, tuple):
        return [register for part in value for register in flatten(part)]
    return []


def rebuild(like: Value, registers: Sequence[Any]) -> Value:
    """A value of the same kind as another one, from registers."""
    value, rest = _take(like, list(registers))
    assert not rest
    return value


def _take(like: Value, registers: list[Any]) -> tuple[Value, list[Any]]:
    if isinstance(like, Number):
        return Number(like.dtype, registers[0]), registers[1:]
    if isinstance(like, Array):
        n = len(like.sizes)
        return Array(like.dtype, registers[0], tuple(registers[1 : n + 1])), registers[n + 1 :]
    if isinstance(like, tuple):
        parts = []
        for part in like:
            made, registers = _take(part, registers)
            parts.append(made)
        return (type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)), registers
    return like, registers


def kind_of(value: Value) -> Any:
    """A key that is equal for values of one kind: the same types, and equal constants."""
    if isinstance(value, Number):
        return ("number", value.dtype.str)
    if isinstance(value, Array):
        return ("array", value.dtype.str, len(value.sizes))
    if isinstance(value, tuple):
        return (type(value), *map(kind_of, value))
    return ("constant", type(value), value)  # 1 == 1.0 == True
