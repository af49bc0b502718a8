"""Memory for the names whose values change."""

import numpy as np
from llvmlite import ir

from gpt2cli.inference.cpu.compiler.emission import variable
from gpt2cli.inference.cpu.compiler.values import (
    Number,
    Value,
    as_number,
    convert,
    flatten,
    found,
    holds,
    kind_of,
    rebuild,
)


class Place:
    """Memory for the value of a name that changes."""

    def __init__(self, b: ir.IRBuilder, value: Value) -> None:
        self.like, self._b = value, b
        self._memory = [variable(b, register.type) for register in flatten(value)]

    def store(self, value: Value) -> None:
        for register, place in zip(flatten(self._converted(value, self.like)), self._memory, strict=True):
            self._b.store(register, place)

    def _converted(self, value: Value, like: Value) -> Value:
        """A value with the types of another one."""
        if isinstance(like, tuple):
            return tuple(self._converted(part, other) for part, other in zip(value, like, strict=True))
        if not isinstance(like, Number):
            if kind_of(value) != kind_of(like):
                raise TypeError(f"the variable is {found(like)} where it is first assigned, not {found(value)}")
            return value
        if not holds(like.dtype, value):
            raise TypeError(
                f"the variable is {like.dtype} where it is first assigned, and cannot become {found(value)}"
            )
        return convert(self._b, value, like.dtype)

    def load(self) -> Value:
        return rebuild(self.like, [self._b.load(place) for place in self._memory])


def registered(value: Value) -> Value:
    """A result in registers, as it may differ between the places where the function returns."""
    if isinstance(value, tuple):
        return tuple(map(registered, value))
    return as_number(value) if isinstance(value, bool | int | float | np.generic) else value
