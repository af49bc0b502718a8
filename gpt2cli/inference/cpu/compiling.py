"""Compiles the loops for this processor when they are first used, and keeps the machine code on disk.

The machine code of a precision is an object file in a `Store`. The file's name is a digest of everything that the code
depends on, without paths, so that other environments find it.
"""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import llvmlite

from gpt2cli import paths
from gpt2cli.inference.cpu.compiled_store import Store
from gpt2cli.inference.cpu.compiler.object_code import Loop, link
from gpt2cli.inference.cpu.processor import FEATURES, NAME, TRIPLE


class Loops(NamedTuple):
    """The compiled functions of a precision. Each takes the address of its table, and a thread's number."""

    forward: Loop
    multiply: Loop
    read_memory: Loop


@cache
def store() -> Store:
    """The store of machine code."""
    return Store(paths.cache())


def is_compiled(precision: str) -> bool:
    """Whether the loops of a precision are in the store, undamaged."""
    return store().read(_file_name(precision)) is not None


@cache
def loops(precision: str) -> Loops:
    """The loops of a precision. They are read from the store, or compiled, which takes a second or two."""
    name = _file_name(precision)
    try:
        return Loops(*link(store().read(name) or compile_loops(precision), Loops._fields, parameters=2))
    except RuntimeError:  # the file has the right digest, but is no object file with these functions
        store().delete(name)
        return Loops(*link(compile_loops(precision), Loops._fields, parameters=2))


def compile_loops(precision: str) -> bytes:
    """Compile the loops of a precision and keep them. A second process waits for the first, and uses its result."""
    with _one_at_a_time():
        code = store().read(_file_name(precision))
        if code is None:
            from gpt2cli.inference.cpu.compiler.object_code import compile_module
            from gpt2cli.inference.cpu.entry_points import module_for

            code = compile_module(module_for(precision))
            store().write(_file_name(precision), code)
    return code


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    place = store()
    with ExitStack() as stack:
        if place.directory is not None and place.problem is None:
            with suppress(OSError, NotImplementedError):  # without locks in the file system, both processes compile
                from filelock import FileLock

                stack.enter_context(FileLock(place.directory / ".lock"))
                place.sweep()
        yield


@cache
def _file_name(precision: str) -> str:
    """A digest of what the loops of a precision depend on: the sources, LLVM's version and the processor."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted(here.rglob("*.py")):
        digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    digest.update(repr((precision, llvmlite.__version__, TRIPLE, NAME, sorted(FEATURES))).encode())
    return digest.hexdigest()
