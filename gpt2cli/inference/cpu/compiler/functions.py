"""The functions that can be compiled, and their source as a tree."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any


class CompilationError(TypeError):
    """A function cannot be compiled. The message names the function and the line, and those that called it."""


@dataclass(frozen=True, eq=False)
class Compiled:
    """A function in Python that is compiled: as a part of its callers, or once for each kind of its arguments."""

    function: Callable[..., Any]
    is_inlined: bool

    def __call__(self, *arguments: Any) -> Any:
        """Run the function as Python does, on arrays and numbers of NumPy. Intrinsics cannot be run."""
        return self.function(*arguments)

    @property
    def name(self) -> str:
        return self.function.__name__

    @cached_property
    def tree(self) -> ast.FunctionDef:
        """The function's definition."""
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(self.function))).body
        assert isinstance(definition, ast.FunctionDef)
        return definition

    def place(self, line: int) -> str:
        """The function's name and a line of its tree, as a message names them."""
        code = self.function.__code__
        return f"{self.name}, {Path(code.co_filename).name}:{code.co_firstlineno + line - 1}"

    @cached_property
    def parameters(self) -> list[str]:
        return [argument.arg for argument in self.tree.args.args]

    @cached_property
    def outer_names(self) -> Mapping[str, Any]:
        """What names outside of the function stand for."""
        found = inspect.getclosurevars(self.function)
        return {**found.builtins, **self.function.__globals__, **found.nonlocals}

    @cached_property
    def changing(self) -> set[str]:
        """The names that are assigned more than once, and so need a place in memory."""
        names = self._assignments
        return {name for name, count in names.items() if count > 1} | names.keys() & set(self.parameters)

    @cached_property
    def own_names(self) -> Set[str]:
        """The names of the parameters and of what the function assigns to. Names outside of it are others."""
        return self._assignments.keys() | set(self.parameters)

    @cached_property
    def _assignments(self) -> dict[str, int]:
        """How often each name is assigned."""
        times: dict[str, int] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                times[node.id] = times.get(node.id, 0) + 1
            elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                times[node.target.id] = times.get(node.target.id, 0) + 1
        return times


@dataclass(frozen=True, eq=False)
class Emitted:
    """A function that writes LLVM's instructions: `emit(builder, *values)` returns a value or None."""

    emit: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        raise TypeError(f"{self.emit.__name__} can only be called by a compiled function")


def inlined(function: Callable[..., Any]) -> Compiled:
    """Decorator: a function that is compiled as a part of its callers."""
    return Compiled(function, is_inlined=True)


def called(function: Callable[..., Any]) -> Compiled:
    """Decorator: a function that is compiled once for each kind of arguments, and returns nothing."""
    return Compiled(function, is_inlined=False)


def emitted(function: Callable[..., Any]) -> Emitted:
    """Decorator: a function that gets a builder and values, and writes LLVM's instructions."""
    return Emitted(function)
