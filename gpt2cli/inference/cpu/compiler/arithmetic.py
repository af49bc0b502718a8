"""Operations on numbers and arrays, as LLVM's instructions."""

import ast
from collections.abc import Mapping
from typing import Any

import numpy as np
from llvmlite import ir

from gpt2cli.inference.cpu.compiler.emission import declared
from gpt2cli.inference.cpu.compiler.values import (
    BOOL,
    IN_ORDER,
    INDEX,
    Array,
    Number,
    Value,
    as_number,
    common_type,
    convert,
    indexes,
    is_constant,
    llvm_type,
)

_FLOATS = {ast.Add: "fadd", ast.Sub: "fsub", ast.Mult: "fmul", ast.Div: "fdiv"}
_INTEGERS = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.LShift: "shl",
    ast.RShift: "ashr",
    ast.BitAnd: "and_",
    ast.BitOr: "or_",
    ast.BitXor: "xor",
}
_COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
_FUNCTIONS = {"sqrt": "llvm.sqrt", "rint": "llvm.rint", "floor": "llvm.floor", "fabs": "llvm.fabs"}


def binary(b: ir.IRBuilder, operation: ast.operator, left: Value, right: Value) -> Number:
    """left + right, and so on. Division of whole numbers rounds down, as in Python."""
    dtype = common_type(left, right)
    if isinstance(operation, ast.Div) and dtype.kind in "iu":
        dtype = np.dtype(np.float32)
    x, y = convert(b, left, dtype).llvm, convert(b, right, dtype).llvm
    if dtype.kind == "f":
        return Number(dtype, getattr(b, _named(_FLOATS, operation, dtype))(x, y, flags=IN_ORDER))
    if dtype == BOOL and not isinstance(operation, ast.BitAnd | ast.BitOr | ast.BitXor):
        raise TypeError(f"{type(operation).__name__} of conditions cannot be compiled")
    if isinstance(operation, ast.FloorDiv | ast.Mod):
        return Number(dtype, _divide(b, x, y, isinstance(operation, ast.Mod), dtype.kind == "u"))
    name = _named(_INTEGERS, operation, dtype)
    if name == "ashr" and dtype.kind == "u":
        name = "lshr"
    flags = {"flags": ("nsw",)} if name in ("add", "sub", "mul") and dtype == INDEX else {}
    return Number(dtype, getattr(b, name)(x, y, **flags))


def _named(names: Mapping[Any, str], operation: ast.AST, dtype: np.dtype[Any]) -> str:
    """The name of an operation on numbers of this type."""
    if type(operation) not in names:
        raise TypeError(f"{type(operation).__name__} of {dtype} cannot be compiled")
    return names[type(operation)]


def _divide(b: ir.IRBuilder, x: Any, y: Any, modulo: bool, unsigned: bool) -> Any:
    """The quotient of whole numbers, rounded down, or its remainder, which has the sign of y."""
    if unsigned:
        return b.urem(x, y) if modulo else b.udiv(x, y)
    zero = ir.Constant(x.type, 0)
    rest = b.srem(x, y)
    is_between = b.and_(b.icmp_signed("!=", rest, zero), b.icmp_signed("<", b.xor(rest, y), zero))
    if modulo:
        return b.select(is_between, b.add(rest, y), rest)
    quotient = b.sdiv(x, y)
    return b.select(is_between, b.sub(quotient, ir.Constant(x.type, 1)), quotient)


def compare(b: ir.IRBuilder, operation: ast.cmpop, left: Value, right: Value) -> Number:
    """left < right, and so on. Comparisons with NaN are false, but for !=."""
    dtype, sign = common_type(left, right), _named(_COMPARISONS, operation, common_type(left, right))
    x, y = convert(b, left, dtype).llvm, convert(b, right, dtype).llvm
    if dtype.kind == "f":
        return Number(BOOL, (b.fcmp_unordered if sign == "!=" else b.fcmp_ordered)(sign, x, y))
    return Number(BOOL, (b.icmp_unsigned if dtype.kind == "u" else b.icmp_signed)(sign, x, y))


def negate(b: ir.IRBuilder, value: Value) -> Number:
    number = as_number(value)
    return Number(number.dtype, b.fneg(number.llvm) if number.dtype.kind == "f" else b.neg(number.llvm))


def extreme(b: ir.IRBuilder, sign: str, left: Value, right: Value) -> Number:
    """The smaller or the larger of two numbers, by Python's rule: the right one only if it is beyond the left one."""
    dtype = common_type(left, right)
    x, y = convert(b, left, dtype), convert(b, right, dtype)
    chosen = compare(b, ast.Lt() if sign == "min" else ast.Gt(), y, x)
    return Number(dtype, b.select(chosen.llvm, y.llvm, x.llvm))


def apply(b: ir.IRBuilder, name: str, value: Value) -> Number:
    """A function of NumPy of one float."""
    number = as_number(value)
    if number.dtype.kind != "f":
        raise TypeError(f"{name} of {number.dtype} cannot be compiled")
    kind = number.llvm.type
    suffix = {"half": "f16", "float": "f32", "double": "f64"}[str(kind)]
    function = declared(b, ir.FunctionType(kind, [kind]), f"{_FUNCTIONS[name]}.{suffix}")
    return Number(number.dtype, b.call(function, [number.llvm], fastmath=IN_ORDER))


def _from_beginning(b: ir.IRBuilder, *places: Value) -> list[Any]:
    """Places in an array as registers of int64."""
    if any(is_constant(place) and place < 0 for place in places):
        raise IndexError("places count from the beginning of an array")
    return indexes(b, *places)


def element_pointer(b: ir.IRBuilder, array: Array, places: tuple[Value, ...]) -> Any:
    """The pointer to an element, or to the first element of a part of an array."""
    if len(places) > len(array.sizes):
        raise IndexError(f"an array of {len(array.sizes)} dimensions has no element with {len(places)} places")
    known = [*_from_beginning(b, *places), *[ir.Constant(ir.IntType(64), 0)] * (len(array.sizes) - len(places))]
    offset: Any = None
    for place, size in zip(known, array.sizes, strict=True):
        offset = place if offset is None else b.add(b.mul(offset, size, flags=("nsw",)), place, flags=("nsw",))
    return b.gep(array.data, [offset])


def element(b: ir.IRBuilder, array: Array, places: tuple[Value, ...]) -> Value:
    """An element of an array, or with fewer places than dimensions, a row or a part."""
    pointer = element_pointer(b, array, places)
    if len(places) < len(array.sizes):
        return Array(array.dtype, pointer, array.sizes[len(places) :])
    return Number(array.dtype, b.load(pointer, align=array.dtype.itemsize))


def store_element(b: ir.IRBuilder, array: Array, places: tuple[Value, ...], value: Value) -> None:
    if len(places) < len(array.sizes):
        raise TypeError("numbers are assigned one by one, and not a part of an array at a time")
    pointer = element_pointer(b, array, places)
    b.store(convert(b, value, array.dtype).llvm, pointer, align=array.dtype.itemsize)


def part(b: ir.IRBuilder, array: Array, first: Value, last: Value | None) -> Array:
    """array[first:last], along the first dimension. The places must be within the array."""
    [start] = _from_beginning(b, first)
    end = array.sizes[0] if last is None else _from_beginning(b, last)[0]
    pointer = element_pointer(b, array, (Number(INDEX, start),))
    return Array(array.dtype, pointer, (b.sub(end, start), *array.sizes[1:]))


def view(b: ir.IRBuilder, array: Array, dtype: np.dtype[Any]) -> Array:
    """The same bits as numbers of another type of the same size."""
    if dtype.itemsize != array.dtype.itemsize:
        raise TypeError(f"{array.dtype} and {dtype} have different sizes")
    return Array(dtype, b.bitcast(array.data, llvm_type(dtype).as_pointer()), array.sizes)
