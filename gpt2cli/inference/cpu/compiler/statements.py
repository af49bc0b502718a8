"""Translates statements."""

import ast
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from gpt2cli.inference.cpu.compiler import arithmetic
from gpt2cli.inference.cpu.compiler.expressions import Expressions
from gpt2cli.inference.cpu.compiler.functions import CompilationError, Compiled
from gpt2cli.inference.cpu.compiler.places import Place, registered
from gpt2cli.inference.cpu.compiler.values import (
    INDEX,
    Array,
    Number,
    Value,
    indexes,
    is_constant,
)

if TYPE_CHECKING:
    from gpt2cli.inference.cpu.compiler.translate import Translation


class Body:
    """The body of a function, translated for some arguments."""

    def __init__(self, translation: "Translation", function: Compiled, arguments: Sequence[Value]) -> None:
        if len(arguments) != len(function.parameters):
            raise TypeError(f"{function.name} takes {len(function.parameters)} arguments, not {len(arguments)}")
        self._translation, self.b, self._function = translation, translation.b, function
        self._names: dict[str, Any] = {}
        self._expressions = Expressions(translation, self._look_up)
        self._result: Place | None = None
        self._constant_result: Value = None
        self._exit: Any = None
        self._line = 1  # that is translated
        for name, value in zip(function.parameters, arguments, strict=True):
            self._assign_name(name, value)

    def translate(self) -> Value:
        """Translate the statements. Returns the result."""
        try:
            self._statements(self._function.tree.body)
        except CompilationError as error:  # of a function that is called there
            raise CompilationError(f"{error}\n  called by {self._function.place(self._line)}") from error.__cause__
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise CompilationError(f"{self._function.place(self._line)}: {reason}") from error
        if self._exit is None:
            return self._constant_result
        if not self.b.block.is_terminated:
            if self._result is not None:
                raise CompilationError(f"{self._function.place(self._line)}: TypeError: not all ways return a value")
            self.b.branch(self._exit)
        self.b.position_at_end(self._exit)
        return self._result.load() if self._result else None

    def _look_up(self, name: str) -> Value:
        if name in self._names:
            value = self._names[name]
            return value.load() if isinstance(value, Place) else value
        if name in self._function.own_names or name not in self._function.outer_names:
            raise NameError(f"{name} has no value here")
        return self._function.outer_names[name]

    def _assign_name(self, name: str, value: Value) -> None:
        if name not in self._function.changing:
            self._names[name] = value
            return
        if name not in self._names:
            value = registered(value)
            self._names[name] = Place(self.b, value)
        self._names[name].store(value)

    def _statements(self, nodes: Sequence[ast.stmt]) -> None:
        for node in nodes:
            if self.b.block.is_terminated:
                return  # after a return
            method: Callable[[Any], None] | None = getattr(self, f"_{type(node).__name__.lower()}", None)
            self._line = node.lineno
            if method is None:
                raise TypeError(f"{ast.unparse(node)} cannot be compiled")
            method(node)

    def _expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self._expressions.value(node.value)

    def _pass(self, node: ast.Pass) -> None:
        """Nothing to do."""

    def _return(self, node: ast.Return) -> None:
        value = self._expressions.value(node.value) if node.value else None
        is_last = node is self._function.tree.body[-1] and self._exit is None
        if is_last:
            self._constant_result = value
            return
        if self._exit is None:
            self._exit = self.b.append_basic_block("exit")
            if value is not None:
                self._result = Place(self.b, registered(value))
        if (self._result is None) != (value is None):
            raise TypeError("some returns have a value and others have none")
        if self._result is not None:
            self._result.store(registered(value))
        self.b.branch(self._exit)

    def _assign(self, node: ast.Assign) -> None:
        value = self._expressions.value(node.value)
        for target in node.targets:
            self._assign_to(target, value)

    def _annassign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self._assign_to(node.target, self._expressions.value(node.value))

    def _assign_to(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Name):
            self._assign_name(target.id, value)
        elif isinstance(target, ast.Tuple):
            for inner, part in zip(target.elts, self._parts(value, len(target.elts)), strict=True):
                self._assign_to(inner, part)
        elif isinstance(target, ast.Subscript):
            array = self._expressions.value(target.value)
            arithmetic.store_element(self.b, array, self._expressions.places(target.slice), value)
        else:
            raise TypeError(f"{ast.unparse(target)} cannot be assigned to")

    def _parts(self, value: Value, count: int) -> Sequence[Value]:
        """The parts of a tuple, or the elements of an array of known length."""
        if isinstance(value, Array):
            return [arithmetic.element(self.b, value, (i,)) for i in range(count)]
        parts: Sequence[Value] = value
        return parts

    def _augassign(self, node: ast.AugAssign) -> None:
        if any(isinstance(part, ast.Call) for part in ast.walk(node.target)):
            raise TypeError(f"{ast.unparse(node)} cannot be compiled: it would call the function twice")
        before = self._expressions.value(_loaded(node.target))
        self._assign_to(node.target, self._expressions.binary(node.op, before, self._expressions.value(node.value)))

    def _if(self, node: ast.If) -> None:
        condition = self._expressions.condition(node.test)
        if isinstance(condition, bool):
            self._statements(node.body if condition else node.orelse)
            return
        then, other, after = (self.b.append_basic_block(name) for name in ("then", "else", "after"))
        self.b.cbranch(condition, then, other)
        is_over = True  # if both branches return
        for block, body in ((then, node.body), (other, node.orelse)):
            self.b.position_at_end(block)
            self._conditional(body)
            if not self.b.block.is_terminated:
                self.b.branch(after)
                is_over = False
        self.b.position_at_end(after)
        if is_over:
            self.b.unreachable()

    def _conditional(self, nodes: Sequence[ast.stmt], *assigned: tuple[ast.expr, Value]) -> None:
        """Statements that may not run. A name that is assigned once, and there, has no value afterwards."""
        before = dict(self._names)
        for target, value in assigned:
            self._assign_to(target, value)
        self._statements(nodes)
        self._names = before | {name: value for name, value in self._names.items() if isinstance(value, Place)}

    def _while(self, node: ast.While) -> None:
        _refuse_else(node)
        test, body, after = (self.b.append_basic_block(name) for name in ("test", "body", "after"))
        self.b.branch(test)
        self.b.position_at_end(test)
        condition = self._expressions.condition(node.test)
        self.b.cbranch(ir.Constant(ir.IntType(1), condition) if isinstance(condition, bool) else condition, body, after)
        self.b.position_at_end(body)
        self._conditional(node.body)
        if not self.b.block.is_terminated:
            self.b.branch(test)
        self.b.position_at_end(after)

    def _for(self, node: ast.For) -> None:
        _refuse_else(node)
        if not (isinstance(node.iter, ast.Call) and self._expressions.value(node.iter.func) is range):
            for value in self._expressions.value(node.iter):  # a tuple: the body is repeated for each part
                self._assign_to(node.target, value)
                self._statements(node.body)
            return
        bounds = [self._expressions.value(argument) for argument in node.iter.args]
        first, end, step = (0, bounds[0], 1) if len(bounds) == 1 else (*bounds, 1)[:3]
        start, end = (Number(INDEX, register) for register in indexes(self.b, first, end))
        self._loop(node, start, end, step)

    def _loop(self, node: ast.For, first: Number, end: Number, step: Value) -> None:
        if not is_constant(step) or step == 0:
            raise TypeError("the step of a range must be known, and not 0")
        place = Place(self.b, first)
        place.store(first)
        test, body, after = (self.b.append_basic_block(name) for name in ("test", "body", "after"))
        self.b.branch(test)
        self.b.position_at_end(test)
        sign = ">" if step < 0 else "<"
        self.b.cbranch(self.b.icmp_signed(sign, place.load().llvm, end.llvm), body, after)
        self.b.position_at_end(body)
        self._conditional(node.body, (node.target, place.load()))
        if not self.b.block.is_terminated:
            place.store(self._expressions.binary(ast.Add(), place.load(), step))
            self.b.branch(test)
        self.b.position_at_end(after)


def _refuse_else(node: ast.For | ast.While) -> None:
    if node.orelse:
        raise TypeError("a loop with else cannot be compiled")


def _loaded(target: ast.expr) -> ast.expr:
    """An expression that reads what a statement writes."""
    return ast.parse(ast.unparse(target), mode="eval").body
