"""A directory of files with compiled code that only the user can write to.

The code is unpickled and executed. So a file is used only if it and its directory belong to the user who runs this
process, if nobody else can write to them, and if the digest at the file's beginning is that of its content.
"""

import hashlib
import os
import secrets
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path

ROOM = 2**23
"""Bytes that must be free on the disk. The loops for one precision take a quarter of that."""
STALE = 3600.0
"""The age in seconds at which a temporary file is deleted: the process that wrote it was probably killed."""
_DIGEST_SIZE = hashlib.sha256().digest_size
# do not follow links, and do not wait for the writer of a FIFO
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


class Store:
    """The files in the directory `base`/compiled. With `base` None, nothing is stored. No method raises OSError.

    directory  None if it cannot be used
    problem    the reason why no files can be written, or None if they can
    """

    def __init__(self, base: Path | None) -> None:
        self.directory: Path | None = None
        self.problem: str | None = "there is no home directory"
        if base is None:
            return
        directory = base / "compiled"
        try:
            self.problem = _make_parent(base) or _make_private(directory)
            if self.problem is None:
                self.directory = directory
                self.problem = _try_to_write(directory)
        except (OSError, ValueError, StopIteration) as error:
            self.problem = _reason(directory, error)

    def read(self, name: str) -> bytes | None:
        """The content of a file, or None if it is missing or damaged, or if others can write to it."""
        if self.directory is None:
            return None
        try:
            if not is_private(self.directory.lstat()):
                return None
            with os.fdopen(os.open(self.directory / name, _READ), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or not is_private(status):
                    return None
                digest, content = file.read(_DIGEST_SIZE), file.read()
        except OSError:
            return None
        return content if hashlib.sha256(content).digest() == digest else None

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a file. If that fails, `problem` says why, and later calls write nothing."""
        if self.directory is None or self.problem is not None:
            return
        temporary = self.directory / f"{secrets.token_hex(8)}.tmp"
        try:
            if not is_private(self.directory.lstat()):
                return
            with os.fdopen(os.open(temporary, _WRITE, 0o600), "wb") as file:
                file.write(hashlib.sha256(content).digest() + content)
            temporary.replace(self.directory / name)
        except OSError as error:
            self.problem = _reason(self.directory, error)
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""
        if self.directory is not None:
            with suppress(OSError):
                (self.directory / name).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Delete temporary files of processes that were killed while they wrote."""
        if self.directory is None:
            return
        with suppress(OSError):
            for left in self.directory.glob("*.tmp"):
                if left.lstat().st_mtime < time.time() - STALE:
                    left.unlink(missing_ok=True)


def is_private(status: os.stat_result) -> bool:
    """Whether a file or directory belongs to the user who runs this process, and only that user can write to it.

    Windows has neither user ids nor these bits. A user's cache directory is private there by its access list.
    """
    return os.name == "nt" or (status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


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


def _try_to_write(directory: Path) -> str | None:
    """Write an empty file and delete it. Returns the reason if there is no room for more, else None."""
    probe = directory / f"{secrets.token_hex(8)}.tmp"
    os.close(os.open(probe, _WRITE, 0o600))
    probe.unlink()
    return f"there is no room in {directory}" if shutil.disk_usage(directory).free < ROOM else None


def _reason(path: Path, error: Exception) -> str:
    return f"cannot write to {path} ({getattr(error, 'strerror', None) or error})"
