"""How the loops are compiled: by Numba, for the processor at hand, when they are first used; and then kept.

Numba would keep what it compiled of a file as long as that file stays as it is, though parts of it come from others.
So there is a directory for each version of all these files in each place, in the user's cache (or NUMBA_CACHE_DIR).
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock
from llvmlite.binding import get_host_cpu_name
from numba import config, njit

FAST = {"reassoc", "contract", "nsz", "arcp"}
"""Sums in any order; but what is not finite stays so."""


def _directory() -> Path | None:
    """Where compiled loops are kept, if anything can be kept there."""
    here = Path(__file__).parent
    sources = b"".join(file.read_bytes() for file in sorted([*here.glob("*.py"), here.parent / "quantization.py"]))
    chosen = config.CACHE_DIR or platformdirs.user_cache_dir("gpt2cli", appauthor=False)
    directory = Path(chosen) / "kernels" / hashlib.sha256(bytes(here) + sources).hexdigest()[:16]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return directory if os.access(directory, os.W_OK) else None


DIRECTORY = _directory()


def compiled(function: Callable[..., Any], **options: bool) -> Any:
    """The function, compiled for the types that it is called with."""
    dispatcher = njit(fastmath=FAST, error_model="numpy", **options)(function)
    if DIRECTORY is not None:
        before, config.CACHE_DIR = config.CACHE_DIR, str(DIRECTORY)
        try:
            dispatcher.enable_caching()
        finally:
            config.CACHE_DIR = before
    return dispatcher


def parallel(function: Callable[..., Any]) -> Any:
    """As `compiled`, with the loops over `prange` divided among threads."""
    return compiled(function, parallel=True)


def inlined(function: Callable[..., Any]) -> Any:
    """As `compiled`, within what calls it: where a call, and counting who holds the arrays, would take longer."""
    return compiled(function, forceinline=True)


def are_kept(precision: str) -> bool:
    """Whether the loops for a precision have been compiled before."""
    return DIRECTORY is not None and _mark(DIRECTORY, precision).exists()


@contextmanager
def alone(precision: str) -> Iterator[None]:
    """Around what may compile the loops for a precision.

    While another process does, wait for it: Numba's index of what it keeps takes no two writers.
    """
    if DIRECTORY is None:
        yield
        return
    with FileLock(DIRECTORY / ".lock"):
        yield
        _mark(DIRECTORY, precision).touch()


def _mark(directory: Path, precision: str) -> Path:
    return directory / f"{get_host_cpu_name()}-{precision}"
