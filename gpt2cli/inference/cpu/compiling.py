"""Compiles the loops for this processor when they are first used, by Numba, and keeps the machine code on disk.

Numba's own cache notices only changes of a loop's own file, not of the files that it imports, and it trusts every file
that it finds. So the code is kept in a `Store` in the user's cache directory (or NUMBA_CACHE_DIR). The names of the
store's files are digests of everything that the code depends on, without paths, so that other environments find them.

A precision needs several loops. When all of them are in the store, a further file lists their names. With this list,
`is_compiled` finds out beforehand whether something must be compiled.
"""

import hashlib
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import llvmlite
import numba
import platformdirs
from filelock import FileLock
from llvmlite.binding import get_host_cpu_features, get_host_cpu_name
from numba import config, njit
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from gpt2cli.inference.cpu.compiled_store import Store

FAST = {"reassoc", "contract", "nsz", "arcp"}
"""LLVM's flags: sums in any order, but infinity and NaN behave as usual."""

_used: set[str] = set()
"""Names of the compiled loops that this process has read from the store or written to it."""
_read_ahead: dict[str, bytes] = {}
"""Contents of the loops that `is_compiled` has checked, by name, so that they need not be read and checked again."""


@cache
def store() -> Store:
    """The store of compiled loops."""
    try:
        base = config.CACHE_DIR.strip() or platformdirs.user_cache_dir("gpt2cli", appauthor=False)
    except RuntimeError:  # no HOME, and no account with a home directory
        return Store(None)
    return Store(Path(base))


@cache
def _basis() -> bytes:
    """A digest of what all loops depend on: the sources and the versions of Python, Numba and LLVM."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted([*here.glob("*.py"), here.parents[1] / "model" / "quantization.py"]):
        digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    versions = (sys.implementation.cache_tag, sys.abiflags if sys.platform != "win32" else "")
    digest.update(repr((*versions, numba.__version__, llvmlite.__version__)).encode())
    return digest.digest()


def _file_name(*parts: Any) -> str:
    """The name of a file whose content depends on these parts and on `_basis`."""
    return hashlib.sha256(_basis() + repr([str(part) for part in parts]).encode()).hexdigest()


class _StoredOverloads(_Cache):  # type: ignore[misc]
    """Numba's cache of a function's machine code: a file of the store for each tuple of argument types."""

    cache_path = None

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = f"{function.__module__}.{function.__qualname__}"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled function for these argument types, or None if it must be compiled."""
        target_context.refresh()
        name = self._overload_name(sig, target_context.codegen())
        content = _read_ahead.pop(name, None) or store().read(name)
        if content is None:
            return None
        try:
            result = CompileResult._rebuild(target_context, *pickle.loads(content))
        except Exception:  # unpickling can raise anything; the loop is compiled instead
            store().delete(name)
            return None
        _used.add(name)
        return result

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write a compiled function to the store."""
        if data.lifted or data.library.has_dynamic_globals:
            return
        name = self._overload_name(sig, data.codegen)
        store().write(name, dumps(data._reduce()))
        _used.add(name)

    def _overload_name(self, sig: Any, codegen: Any) -> str:
        return _file_name(self._function, sig, *codegen.magic_tuple())

    def enable(self) -> None:
        """Do nothing: the cache is always enabled, and buffers nothing."""

    disable = flush = enable


def compiled(function: Callable[..., Any], **options: bool) -> Any:
    """Decorator: compile a function for the argument types of each call. The machine code is kept in the store."""
    dispatcher = njit(fastmath=FAST, error_model="numpy", **options)(function)
    dispatcher._cache = _StoredOverloads(function)  # as Numba's `enable_caching` sets its own cache
    return dispatcher


parallel = partial(compiled, parallel=True)
"""As `compiled`, with loops over `prange` divided among threads."""
inlined = partial(compiled, forceinline=True)
"""As `compiled`, inlined into the callers, because a call and the counting of references would take too long."""


def is_compiled(precision: str) -> bool:
    """Whether all loops for a precision are in the store, undamaged."""
    names = _listed(precision)
    contents = {name: store().read(name) for name in names}
    _read_ahead.clear()
    _read_ahead.update({name: content for name, content in contents.items() if content is not None})
    return bool(names) and len(_read_ahead) == len(contents)


@contextmanager
def compile_lock(precision: str) -> Iterator[None]:
    """Hold a lock while the loops for a precision are compiled or read, then write the list of their names.

    A second process waits for the lock and uses the result. All loops must be called within the lock.
    """
    place = store()
    with ExitStack() as stack:
        if place.directory is not None and place.problem is None:
            with suppress(OSError, NotImplementedError):  # without locks in the file system, both processes compile
                stack.enter_context(FileLock(place.directory / ".lock"))
                place.sweep()
        yield
    _read_ahead.clear()
    names = _listed(precision)
    if place.problem is None and not (names and _used.issuperset(names)):  # also to drop unused names
        place.write(_list_name(precision), "\n".join(sorted(_used)).encode())


def _listed(precision: str) -> list[str]:
    """The names of the loops for a precision, or none if not all of them have been compiled yet."""
    return (store().read(_list_name(precision)) or b"").decode("ascii", "replace").split()


def _list_name(precision: str) -> str:
    return _file_name("all loops", precision, get_host_cpu_name(), get_host_cpu_features().flatten())
