"""Files and directories that only the user who runs this process can write to."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

# do not follow links, and do not wait for the writer of a FIFO
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def make_private(directory: Path) -> str | None:
    """Make a directory and its parents. Returns the reason if it is not private to this user, or cannot be made."""
    try:
        return _make_parent(directory.parent) or _make_private(directory)
    except (OSError, ValueError, StopIteration) as error:
        return reason(directory, error)


def is_private(status: os.stat_result) -> bool:
    """Whether a file or directory belongs to the user who runs this process, and only that user can write to it.

    Windows has neither user ids nor these bits. A user's cache directory is private there by its access list.
    """
    return os.name == "nt" or (status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


@contextmanager
def open_private(file: Path) -> Iterator[BinaryIO]:
    """Open an ordinary file for reading. Raises OSError, also if others can write to the file or its directory."""
    if not is_private(file.parent.lstat()):
        raise PermissionError(f"others can write to {file.parent}")
    with os.fdopen(os.open(file, _READ), "rb") as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode) or not is_private(status):
            raise PermissionError(f"{file} is not a file that you alone can write to")
        yield opened


@contextmanager
def create_private(file: Path) -> Iterator[BinaryIO]:
    """Create a file, for writing and reading. Raises OSError, also if it exists."""
    with os.fdopen(os.open(file, _CREATE, 0o600), "w+b") as opened:
        yield opened


def reason(path: Path, error: Exception) -> str:
    """Why a file cannot be written, in words for a note."""
    return f"cannot write to {path} ({getattr(error, 'strerror', None) or error})"


def _is_shared(status: os.stat_result) -> bool:
    """Whether everybody can write to a directory of another user, or a group that this user belongs to."""
    ours = status.st_gid in (os.getegid(), *os.getgroups())
    return bool(status.st_mode & (stat.S_IWOTH | (stat.S_IWGRP if ours else 0)))


def _make_parent(base: Path) -> str | None:
    """Make the parent directory. Returns the reason if that must not be done, else None.

    Under `sudo -E`, the home directory is that of another user, and root must not leave files there.
    """
    nearest = next(path for path in [base, *base.absolute().parents] if path.exists())
    status = nearest.stat()
    if os.name != "nt" and status.st_uid != os.geteuid() and not _is_shared(status):
        return f"{nearest} belongs to another user"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    return None


def _make_private(directory: Path) -> str | None:
    """Make the directory. Returns the reason if it is not private to this user, else None."""
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or not is_private(status):
        return f"{directory} is not a directory that you alone can write to"
    return None
