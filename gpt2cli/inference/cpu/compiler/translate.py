"""Translates functions in Python to LLVM's language."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from gpt2cli.inference.cpu.compiler import arithmetic
from gpt2cli.inference.cpu.compiler.functions import Compiled, Emitted
from gpt2cli.inference.cpu.compiler.statements import Body
from gpt2cli.inference.cpu.compiler.values import (
    INDEX,
    Array,
    Number,
    Value,
    convert,
    flatten,
    is_constant,
    kind_of,
    rebuild,
)

_NUMPY_FUNCTIONS = {np.sqrt: "sqrt", np.rint: "rint", np.floor: "floor", np.fabs: "fabs"}


class Unit:
    """A module of LLVM, and the functions that are compiled apart in it."""

    def __init__(self, name: str) -> None:
        self.module = ir.Module(name)
        self._functions: dict[Any, Any] = {}

    def add_entry_point(self, function: Compiled, name: str, parameters: int) -> None:
        """Compile a function of int64 under a name that others see."""
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * parameters)
        self._define(ir.Function(self.module, kind, name), function, [Number(INDEX, None)] * parameters)

    def function_for(self, function: Compiled, arguments: Sequence[Value]) -> Any:
        """The function for arguments of these kinds."""
        key = (function, *map(kind_of, arguments))
        if key not in self._functions:
            types = [register.type for register in flatten(tuple(arguments))]
            name = f"{function.name}.{len(self._functions)}"
            made = ir.Function(self.module, ir.FunctionType(ir.VoidType(), types), name)
            made.linkage = "internal"
            made.attributes.add("noinline")
            self._functions[key] = made
            self._define(made, function, arguments)
        return self._functions[key]

    def _define(self, made: Any, function: Compiled, like: Sequence[Value]) -> None:
        made.attributes.add("nounwind")
        set.add(made.attributes, '"no-builtins"')  # no loop becomes a call of memset. llvmlite does not know the name
        b = ir.IRBuilder(made.append_basic_block("entry"))
        if Translation(self, b).inline(function, rebuild(tuple(like), made.args)) is not None:
            raise TypeError(f"{function.name} is not inlined and cannot return a value")
        b.ret_void()


class Translation:
    """Translates a function, and those that are inlined into it."""

    def __init__(self, unit: Unit, b: ir.IRBuilder) -> None:
        self.unit, self.b = unit, b

    def inline(self, function: Compiled, arguments: Sequence[Value]) -> Value:
        """Translate the body of a function for these arguments. Returns the function's result."""
        return Body(self, function, arguments).translate()

    def call(self, target: Any, arguments: Sequence[Value]) -> Value:
        """The result of a call."""
        if isinstance(target, Compiled) and target.is_inlined:
            return self.inline(target, arguments)
        if isinstance(target, Compiled):
            self.b.call(self.unit.function_for(target, arguments), flatten(tuple(arguments)))
            return None
        if isinstance(target, Emitted):
            return target.emit(self.b, *arguments)
        if isinstance(target, type) and issubclass(target, tuple):
            return target(*arguments)
        if target is len and isinstance(arguments[0], Array):
            return arguments[0].shape[0]
        if all(map(is_constant, arguments)):
            return target(*arguments)
        return self._operation(target, arguments)

    def _operation(self, target: Any, arguments: Sequence[Value]) -> Value:
        if target in (min, max):
            result, *others = arguments
            if not others:
                raise TypeError(f"{target.__name__} needs two numbers")
            for other in others:
                result = arithmetic.extreme(self.b, target.__name__, result, other)
            return result
        if target in _NUMPY_FUNCTIONS:
            return arithmetic.apply(self.b, _NUMPY_FUNCTIONS[target], arguments[0])
        if target in (int, float):
            return convert(self.b, arguments[0], INDEX if target is int else np.dtype(np.float32))
        if isinstance(target, type) and issubclass(target, np.generic):
            return convert(self.b, arguments[0], np.dtype(target))
        raise TypeError(f"{target!r} cannot be compiled")
