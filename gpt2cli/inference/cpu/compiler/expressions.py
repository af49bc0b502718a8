"""Translates expressions."""

import ast
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2cli.inference.cpu.compiler import arithmetic
from gpt2cli.inference.cpu.compiler.values import (
    BOOL,
    Array,
    Number,
    Value,
    common_type,
    convert,
    flatten,
    is_constant,
    kind_of,
    rebuild,
)

if TYPE_CHECKING:
    from gpt2cli.inference.cpu.compiler.translate import Translation


class Expressions:
    """Translates the expressions of a function. `look_up` gives the value of a name."""

    def __init__(self, translation: "Translation", look_up: Callable[[str], Value]) -> None:
        self.translation, self.b, self._look_up = translation, translation.b, look_up

    def value(self, node: ast.expr) -> Value:
        """The value of an expression."""
        method: Callable[[Any], Value] | None = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise TypeError(f"{ast.unparse(node)} cannot be compiled")
        return method(node)

    def condition(self, node: ast.expr) -> Any:
        """A condition: a bool of Python if it is known, else a register of one bit."""
        value = self.value(node)
        return bool(value) if is_constant(value) else convert(self.b, value, BOOL).llvm

    def _constant(self, node: ast.Constant) -> Value:
        return node.value

    def _name(self, node: ast.Name) -> Value:
        return self._look_up(node.id)

    def _tuple(self, node: ast.Tuple) -> Value:
        return tuple(map(self.value, node.elts))

    def _attribute(self, node: ast.Attribute) -> Value:
        return getattr(self.value(node.value), node.attr)

    def _binop(self, node: ast.BinOp) -> Value:
        left, right = self.value(node.left), self.value(node.right)
        return self.binary(node.op, left, right)

    def binary(self, operation: ast.operator, left: Value, right: Value) -> Value:
        if is_constant(left) and is_constant(right):
            tree = ast.Expression(ast.BinOp(ast.Name("left", ast.Load()), operation, ast.Name("right", ast.Load())))
            return _evaluate(tree, {"left": left, "right": right})
        return arithmetic.binary(self.b, operation, left, right)

    def _unaryop(self, node: ast.UnaryOp) -> Value:
        value = self.value(node.operand)
        if is_constant(value):
            tree = ast.Expression(ast.UnaryOp(node.op, ast.Name("value", ast.Load())))
            return _evaluate(tree, {"value": value})
        if isinstance(node.op, ast.USub):
            return arithmetic.negate(self.b, value)
        if isinstance(node.op, ast.Not):
            return Number(BOOL, self.b.not_(convert(self.b, value, BOOL).llvm))
        raise TypeError(f"{ast.unparse(node)} cannot be compiled")

    def _compare(self, node: ast.Compare) -> Value:
        if len(node.ops) > 1:
            raise TypeError(f"{ast.unparse(node)} cannot be compiled: compare two values at a time")
        [operation], [other] = node.ops, node.comparators
        left, right = self.value(node.left), self.value(other)
        if is_constant(left) and is_constant(right):
            names = {"left": left, "right": right}
            return _evaluate(ast.Expression(ast.Compare(_load("left"), [operation], [_load("right")])), names)
        return arithmetic.compare(self.b, operation, left, right)

    def _boolop(self, node: ast.BoolOp) -> Value:
        """`and` or `or` of conditions. All parts are computed, unless one that is known decides."""
        is_and = isinstance(node.op, ast.And)
        result: Any = is_and
        for part in node.values:
            value = self._truth(part)
            if isinstance(value, bool) or isinstance(result, bool):
                known, other = (value, result) if isinstance(value, bool) else (result, value)
                result = other if known == is_and else known
            else:
                result = (self.b.and_ if is_and else self.b.or_)(result, value)
            if result is (not is_and):
                break
        return result if isinstance(result, bool) else Number(BOOL, result)

    def _truth(self, node: ast.expr) -> Any:
        """As `condition`, of what is a condition already: `n or 1` has a number as its result in Python."""
        value = self.value(node)
        if isinstance(value, bool | np.bool_):
            return bool(value)
        if isinstance(value, Number) and value.dtype == BOOL:
            return value.llvm
        raise TypeError(f"{ast.unparse(node)} is no condition: compare it to something")

    def _ifexp(self, node: ast.IfExp) -> Value:
        """One of two values. Both are computed, unless the condition is known."""
        condition = self.condition(node.test)
        if isinstance(condition, bool):
            return self.value(node.body if condition else node.orelse)
        first, second = self._alike(self.value(node.body), self.value(node.orelse))
        pairs = zip(flatten(first), flatten(second), strict=True)
        return rebuild(first, [self.b.select(condition, x, y) for x, y in pairs])

    def _alike(self, first: Value, second: Value) -> tuple[Value, Value]:
        """Two values with the same types: all numbers are in registers."""
        if isinstance(first, tuple):
            pairs = [self._alike(x, y) for x, y in zip(first, second, strict=True)]
            return tuple(x for x, _ in pairs), tuple(y for _, y in pairs)
        if isinstance(first, Array) or isinstance(second, Array):
            if kind_of(first) != kind_of(second):
                raise TypeError("the two values have different types")
            return first, second
        dtype = common_type(first, second)
        return convert(self.b, first, dtype), convert(self.b, second, dtype)

    def _subscript(self, node: ast.Subscript) -> Value:
        base = self.value(node.value)
        if not isinstance(base, Array):
            return (
                base[self.slice_of(node.slice)] if isinstance(node.slice, ast.Slice) else base[self.value(node.slice)]
            )
        if isinstance(node.slice, ast.Slice):
            return self._part(base, node.slice)
        if isinstance(node.slice, ast.Tuple) and isinstance(node.slice.elts[-1], ast.Slice):  # a part of a row
            row = arithmetic.element(self.b, base, tuple(map(self.value, node.slice.elts[:-1])))
            return self._part(row, node.slice.elts[-1])
        return arithmetic.element(self.b, base, self.places(node.slice))

    def _part(self, array: Array, bounds: ast.Slice) -> Array:
        if bounds.step:
            raise TypeError("a part of an array has no step")
        first = self.value(bounds.lower) if bounds.lower else 0
        return arithmetic.part(self.b, array, first, self.value(bounds.upper) if bounds.upper else None)

    def slice_of(self, node: ast.Slice) -> slice:
        """A part of a tuple, whose bounds are known."""
        return slice(*(self.value(bound) if bound else None for bound in (node.lower, node.upper, node.step)))

    def places(self, node: ast.expr) -> tuple[Value, ...]:
        place = self.value(node)
        return place if isinstance(place, tuple) else (place,)

    def _call(self, node: ast.Call) -> Value:
        if node.keywords:
            raise TypeError(f"{ast.unparse(node)} cannot be compiled: arguments have no names")
        arguments = []
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                arguments += self.value(argument.value)
            else:
                arguments.append(self.value(argument))
        if isinstance(node.func, ast.Attribute) and node.func.attr == "view":
            array, [dtype] = self.value(node.func.value), arguments
            return arithmetic.view(self.b, array, np.dtype(dtype))
        return self.translation.call(self.value(node.func), arguments)


def _load(name: str) -> ast.expr:
    return ast.Name(name, ast.Load())


def _evaluate(tree: ast.Expression, names: Mapping[str, Any]) -> Any:
    """The value of an expression that is known."""
    return eval(compile(ast.fix_missing_locations(tree), "constant", "eval"), {}, dict(names))
