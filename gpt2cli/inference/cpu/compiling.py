"""The compilation of the loops: by Numba, for this processor, when they are first used. The result is kept on disk.

Numba's own cache only notices changes of a loop's own file, not of files that it imports. It also trusts any file that
it finds. So there is a `Store`, in the user's cache (or NUMBA_CACHE_DIR). The names of its files are digests of
everything that a compiled loop depends on, without paths, so other environments use the same files.
"""

import hashlib
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
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
"""Sums in any order; but what is not finite stays so."""

_used: set[str] = set()
"""Names of all compiled loops that this process has read from the store or written to it."""


@cache
def store() -> Store:
    """Where compiled loops are kept."""
    try:
        base = config.CACHE_DIR.strip() or platformdirs.user_cache_dir("gpt2cli", appauthor=False)
    except RuntimeError:  # no HOME, and no account that has one
        return Store(None)
    return Store(Path(base))


@cache
def _basis() -> bytes:
    """A digest of what all loops depend on: their sources and the compiler's version."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted([*here.glob("*.py"), here.parents[1] / "model" / "quantization.py"]):
        digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    versions = (sys.implementation.cache_tag, sys.abiflags if sys.platform != "win32" else "")
    digest.update(repr((*versions, numba.__version__, llvmlite.__version__)).encode())
    return digest.digest()


def _name(*parts: Any) -> str:
    """The name of a file that depends on these parts as well."""
    return hashlib.sha256(_basis() + repr([str(part) for part in parts]).encode()).hexdigest()


class _KeptOverloads(_Cache):  # type: ignore[misc]
    """Numba's cache of one function's machine code: a file of the store for each tuple of argument types."""

    cache_path = None

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = f"{function.__module__}.{function.__qualname__}"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled function for these types, or None if it must be compiled."""
        target_context.refresh()
        name = self._overload(sig, target_context.codegen())
        content = store().read(name)
        if content is None:
            return None
        try:
            result = CompileResult._rebuild(target_context, *pickle.loads(content))
        except Exception:  # a pickle raises anything; compiling anew is always right
            store().delete(name)
            return None
        _used.add(name)
        return result

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function."""
        if data.lifted or data.library.has_dynamic_globals:
            return
        name = self._overload(sig, data.codegen)
        store().write(name, dumps(data._reduce()))
        _used.add(name)

    def _overload(self, sig: Any, codegen: Any) -> str:
        return _name(self._function, sig, *codegen.magic_tuple())

    def enable(self) -> None:
        """Do nothing: it is always enabled."""

    def disable(self) -> None:
        """Do nothing: `Store.problem` says if it cannot be used."""

    def flush(self) -> None:
        """Do nothing: there is no buffer."""


def compiled(function: Callable[..., Any], **options: bool) -> Any:
    """The function, compiled for the types that it is called with."""
    dispatcher = njit(fastmath=FAST, error_model="numpy", **options)(function)
    dispatcher._cache = _KeptOverloads(function)  # as `enable_caching` does with Numba's own
    return dispatcher


def parallel(function: Callable[..., Any]) -> Any:
    """As `compiled`, with the loops over `prange` divided among threads."""
    return compiled(function, parallel=True)


def inlined(function: Callable[..., Any]) -> Any:
    """As `compiled`, within what calls it: where a call, and counting who holds the arrays, would take longer."""
    return compiled(function, forceinline=True)


def is_compiled(precision: str) -> bool:
    """Whether all loops for a precision have been compiled before, and are whole."""
    names = (store().read(_mark(precision)) or b"").decode("ascii", "replace").split()
    return bool(names) and all(store().read(name) is not None for name in names)


@contextmanager
def compile_lock(precision: str) -> Iterator[None]:
    """Hold a lock while loops for a precision may be compiled, so that a second process waits and reuses the result."""
    kept = store()
    with ExitStack() as stack:
        if kept.directory is not None and kept.problem is None:
            with suppress(OSError, NotImplementedError):  # a file system without locks: both compile
                stack.enter_context(FileLock(kept.directory / ".lock"))
                kept.sweep()
        yield
    if kept.problem is None and not is_compiled(precision):
        kept.write(_mark(precision), "\n".join(sorted(_used)).encode())


def _mark(precision: str) -> str:
    return _name("all loops", precision, get_host_cpu_name(), get_host_cpu_features().flatten())
