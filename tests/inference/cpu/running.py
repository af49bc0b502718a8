"""Compiles one function for some arguments, and runs it in the calling thread."""

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir

from gpt2cli.inference.cpu.compiler.functions import Compiled, inlined
from gpt2cli.inference.cpu.compiler.object_code import compile_module, link
from gpt2cli.inference.cpu.compiler.translate import Translation, Unit
from gpt2cli.inference.cpu.compiler.values import Array, Number, kind_of, llvm_type, rebuild

_WORD = ir.IntType(64)


def run_compiled(function: Any, *arguments: Any) -> None:
    """Call a function that is to be compiled, with arrays and numbers of NumPy, whole numbers, and tuples of these.

    Plain constants of other types, and whole numbers in `Known`, are known during compilation.
    """
    function = function if isinstance(function, Compiled) else inlined(function)
    like = tuple(map(_like, arguments))
    words = np.array([word for argument in arguments for word in _words(argument)] or [0], np.int64)
    _compiled(function, _Key(like))(words.ctypes.data)


class Known(int):
    """A whole number that is known during compilation."""


class _Key:
    """The kinds of arguments, as a key of a dictionary."""

    def __init__(self, like: tuple[Any, ...]) -> None:
        self.like, self._kind = like, kind_of(like)

    def __hash__(self) -> int:
        return hash(self._kind)

    def __eq__(self, other: Any) -> bool:
        return bool(self._kind == other._kind)


@cache
def _compiled(function: Compiled, key: _Key) -> Any:
    unit = Unit("test")
    made = ir.Function(unit.module, ir.FunctionType(ir.VoidType(), [_WORD]), "run")
    b = ir.IRBuilder(made.append_basic_block("entry"))
    place = b.inttoptr(made.args[0], _WORD.as_pointer())
    registers: list[Any] = []
    for kind in _registers(key.like):
        word = b.load(b.gep(place, [ir.Constant(_WORD, len(registers))]))
        registers.append(_from_word(b, word, kind))
    Translation(unit, b).call(function, rebuild(key.like, registers))
    b.ret_void()
    [run] = link(compile_module(str(unit.module)), ["run"], 1)
    return run


def _like(argument: Any) -> Any:
    if isinstance(argument, Known):
        return int(argument)
    if isinstance(argument, np.ndarray):
        return Array(argument.dtype, None, (None,) * argument.ndim)
    if isinstance(argument, np.generic):
        return Number(argument.dtype, None)
    if isinstance(argument, int) and not isinstance(argument, bool):
        return Number(np.dtype(np.int64), None)
    if isinstance(argument, tuple):
        parts = [_like(part) for part in argument]
        return type(argument)(*parts) if hasattr(argument, "_fields") else tuple(parts)
    return argument


def _words(argument: Any) -> list[int]:
    """The 64-bit words of an argument."""
    if isinstance(argument, np.ndarray):
        assert argument.flags.c_contiguous
        return [argument.ctypes.data, *argument.shape]
    if isinstance(argument, np.generic):
        return [int.from_bytes(argument.tobytes().ljust(8, b"\0"), "little")]
    if isinstance(argument, tuple):
        return [word for part in argument for word in _words(part)]
    return [argument] if isinstance(argument, int) and not isinstance(argument, bool | Known) else []


def _registers(like: Any) -> list[Any]:
    """The types of an argument's registers; a pointer for an array's data."""
    if isinstance(like, Array):
        return [llvm_type(like.dtype).as_pointer(), *[_WORD] * len(like.sizes)]
    if isinstance(like, Number):
        return [llvm_type(like.dtype)]
    return [kind for part in like for kind in _registers(part)] if isinstance(like, tuple) else []


def _from_word(b: Any, word: Any, kind: Any) -> Any:
    if isinstance(kind, ir.PointerType):
        return b.inttoptr(word, kind)
    if isinstance(kind, ir.IntType):
        return word if kind == _WORD else b.trunc(word, kind)
    size = {"half": 16, "float": 32, "double": 64}[str(kind)]
    return b.bitcast(word if size == 64 else b.trunc(word, ir.IntType(size)), kind)
