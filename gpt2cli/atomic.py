"""Writing files so that a crash leaves the old one or the new one, never a mix or a half."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to, which becomes `target` at the end, or is deleted if anything goes wrong.

    The new file's bytes are on disk before it takes the name, and the name is before this returns. It gets the
    permissions that the umask gives.
    """
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _settle(temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


@contextmanager
def replacing_directory(target: Path) -> Iterator[Path]:
    """As `replacing`, for a directory of plain files: it comes whole, and the one that was there goes, or stays."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    old = temporary.with_suffix(".old")
    try:
        yield temporary
        for path in temporary.iterdir():
            _settle(path)
        temporary.chmod(0o777 & ~_umask())
        sync_directory(temporary)
        if target.exists():
            target.rename(old)
        temporary.rename(target)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for left in (temporary, old):
            shutil.rmtree(left, ignore_errors=True)
    sync_directory(target.parent)


def sweep(directory: Path) -> None:
    """Delete what killed processes left of files there. Nobody else may be writing in it by `replacing`."""
    for left in directory.glob(".*.tmp"):
        left.unlink()


def _settle(file: Path) -> None:
    """Give a file the permissions that the umask gives, and have its bytes on disk."""
    file.chmod(0o666 & ~_umask())
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def write_text(target: Path, text: str) -> None:
    """Write a small file in UTF-8, the old one staying until the new one is on disk."""
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sync_directory(path: Path) -> None:
    """Bring a directory's names to disk, where the platform can."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
