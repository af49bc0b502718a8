"""The directories of packed models: which files are kept, and for how long.

    models/<repo>/<commit>/packed/    of a downloaded model; they are removed with it
    packed/                           of all other models, in `paths.packed()`; LIMIT bytes at most

A directory is used only if it and its files belong to the user who runs this process, and if nobody else can write to
them. No function here raises OSError, except in `Kept.writing`.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gpt2cli import paths
from gpt2cli.atomic import sync_directory, sync_file
from gpt2cli.hub.model_cache import PACKED
from gpt2cli.private_files import create_private, make_private

LIMIT = 4 * 10**9
"""The most bytes of packed models in `paths.packed()`. Those that were not used for the longest time are deleted."""
SUFFIX = ".packed"
TEMPORARY = ".tmp"
LOCK = ".lock"


@dataclass(frozen=True)
class Kept:
    """A directory of packed models, with at most `limit` bytes if that is not None."""

    path: Path
    limit: int | None = None

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Yields whether this process alone may now write to the directory. Does not wait for another process.

        If so, what killed processes left is deleted.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError, NotImplementedError):  # another process, a read-only disk, a disk without locks
            yield False
            return
        try:
            for left in self.path.glob(f"*{TEMPORARY}"):
                _delete(left)
            yield True
        finally:
            lock.release()

    def has_room(self, size: int) -> bool:
        """Whether a file of this size may be kept: within the limit, and at most half of what is free on the disk."""
        if self.limit is not None and size > self.limit:
            return False
        try:
            return size <= shutil.disk_usage(self.path).free / 2
        except OSError:
            return False

    def make_room(self, size: int, name: str) -> None:
        """Delete the files that were not used for the longest time until `size` bytes more are within the limit.

        The file `name` is going to be replaced, and does not count.
        """
        if self.limit is None:
            return
        files = sorted((used, length, path) for path, length, used in _files(self.path) if path.name != name)
        total = sum(length for _, length, _ in files)
        for _, length, path in files:
            if total + size <= self.limit:
                return
            _delete(path)
            total -= length

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Yields a file to write to. At the end, it is on the disk under this name. Raises OSError."""
        temporary = self.path / f"{secrets.token_hex(8)}{TEMPORARY}"
        try:
            with create_private(temporary) as file:
                yield file
            sync_file(temporary)
            temporary.replace(self.path / name)
            sync_directory(self.path)
        finally:
            _delete(temporary)

    def mark_used(self, name: str) -> None:
        """Remember that a file was used now."""
        with suppress(OSError):
            os.utime(self.path / name)


def directory_for(home: Path | None) -> Kept | None:
    """Where packed models are kept: beside a downloaded model, whose directory is `home`, or for all others together.

    The latter also if the former is not private to this user. None if neither can be used.
    """
    if home is not None and make_private(home / PACKED) is None:
        return Kept(home / PACKED)
    path = paths.packed()
    return Kept(path, LIMIT) if path is not None and make_private(path) is None else None


def kept_bytes(path: Path | None) -> tuple[int, int]:
    """The number of packed models in a directory, and their bytes."""
    files = [] if path is None else _files(path)
    return len(files), sum(size for _, size, _ in files)


def remove_packed() -> int:
    """Delete all packed models, also those of downloaded models. Returns their bytes. They are made again when needed.

    Files that cannot be deleted stay.
    """
    found = [*paths.models().glob(f"*--*/*/{PACKED}"), *filter(None, [paths.packed()])]
    files = [(path, size) for directory in found for path, size, _ in _files(directory)]
    for path, _ in files:
        _delete(path)
    return sum(size for path, size in files if not path.exists())


def _files(directory: Path) -> list[tuple[Path, int, int]]:
    """The path, the size and the time of the last use, in ns, of each packed model in a directory."""
    found = []
    with suppress(OSError):
        for path in directory.glob(f"*{SUFFIX}"):
            with suppress(OSError):
                status = path.lstat()
                found.append((path, status.st_size, status.st_mtime_ns))
    return found


def _delete(file: Path) -> None:
    with suppress(OSError):
        file.unlink(missing_ok=True)
