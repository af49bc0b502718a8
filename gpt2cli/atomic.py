"""Writing of files so that a crash leaves either the complete old file or the complete new one.

The new file is written inside a temporary directory beside the target, `.NAME.RANDOM.tmp`, and moved to the target's
name at the end. The writer holds a lock on that directory until it has finished. A temporary directory without a lock
was therefore left by a killed process, and the next writer of the same target deletes it.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".tmp"
NEW, OLD = "new", "old"
"""Names inside the temporary directory: of the new directory, and of the directory that it replaces."""
RANDOM = "[0-9a-z_]{8}"
"""The random part of a temporary directory's name: 8 hexadecimal digits. Earlier versions used other characters too."""
LONGEST_PREFIX = 200
"""Bytes of the target's name in the temporary directory's name, which can have 255 bytes."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_RENAME_SWAP = 2  # sys/stdio.h of macOS


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yields a path to write to. At the end, that file becomes `target`; after an exception, it is deleted.

    The bytes are synced to disk before the file gets its name, and the name before this returns. The file gets the
    permissions that the umask gives. Raises OSError.
    """
    with _workplace(target) as place:
        temporary = place / target.name
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777
        yield temporary
        _settle(temporary, mode)
        temporary.replace(target)
        sync_directory(target.parent)


@contextmanager
def replacing_directory(target: Path) -> Iterator[Path]:
    """As `replacing`, for a directory of plain files. The two directories are exchanged in one step.

    If the file system cannot exchange directories, the old one is moved away first. If the process is killed between
    the two moves, no directory has the target's name; `recover` then moves the old one back.
    """
    with _workplace(target) as place:
        new = place / NEW
        new.mkdir()
        mode = new.stat().st_mode & 0o666
        yield new
        for path in new.iterdir():
            _settle(path, mode)
        sync_directory(new)
        if not target.exists():
            new.rename(target)
        elif not _exchange(new, target):
            target.rename(place / OLD)
            new.rename(target)
        sync_directory(target.parent)


def recover(target: Path) -> None:
    """Delete what killed writers of `target` left beside it. Moves an old directory back if there is no target.

    Keeps what living writers have locked. Without locks (on Windows, on some network file systems), keeps everything.
    """
    for left in _leftovers(target):
        if left.is_symlink() or not left.is_dir():
            continue
        try:
            lock = _lock(left)
        except OSError:
            continue
        if lock is not None:
            try:
                _remove(left, target)
            finally:
                os.close(lock)


def sweep(target: Path) -> None:
    """As `recover`, without looking at locks: the caller knows that nobody else is writing `target`.

    Also deletes temporary files, which earlier versions left.
    """
    for left in _leftovers(target):
        if left.is_symlink() or not left.is_dir():
            left.unlink(missing_ok=True)
        else:
            _remove(left, target)


def write_text(target: Path, text: str) -> None:
    """Write a small file in UTF-8. The old file stays until the new one is on disk."""
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def sync_file(path: Path) -> None:
    """Write a file's bytes from the system's cache to disk."""
    with path.open("r+b") as file:  # Windows syncs only files that are open for writing
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync leaves the bytes in the memory of the disk
            with suppress(OSError):
                fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
                return
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Write the names in a directory to disk, if the system can."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    """Yields a locked temporary directory beside `target`, which is deleted at the end."""
    with _naming(target):
        recover(target)
        place, lock = _make_workplace(target)
        try:
            yield place
        finally:
            _remove(place, target)
            if lock is not None:
                os.close(lock)


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Let errors of the file system name the target, instead of nothing or the temporary directory."""
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        beside = str(target.parent / _prefix(target))
        if error.filename is None or str(error.filename).startswith(beside):
            error.filename, error.filename2 = str(target), None
        raise


def _make_workplace(target: Path) -> tuple[Path, int | None]:
    """Make a temporary directory and lock it. Tries again if another process deletes it before it is locked."""
    while True:
        place = target.parent / f"{_prefix(target)}{os.urandom(4).hex()}{SUFFIX}"
        place.mkdir()
        with suppress(BlockingIOError, FileNotFoundError):
            lock = _lock(place)
            if lock is None or place.exists():
                return place, lock
            os.close(lock)


def _prefix(target: Path) -> str:
    name = target.name.encode(errors="surrogateescape")[:LONGEST_PREFIX].decode(errors="ignore")
    return f".{name}."


def _leftovers(target: Path) -> list[Path]:
    """The temporary directories and files that writers of `target` made beside it."""
    name = re.compile(re.escape(_prefix(target)) + RANDOM + re.escape(SUFFIX))
    try:
        return [path for path in target.parent.iterdir() if name.fullmatch(path.name)]
    except OSError:
        return []


def _remove(place: Path, target: Path) -> None:
    """Delete a temporary directory. If there is no target, the old one in that directory is moved back before."""
    if (place / OLD).exists() and not target.exists():
        (place / OLD).rename(target)
    shutil.rmtree(place, ignore_errors=True)


def _lock(directory: Path) -> int | None:
    """Lock a directory. Returns the file descriptor that holds the lock, or None where locks do not exist.

    Raises BlockingIOError if another process holds the lock, OSError if the directory cannot be opened.
    """
    if fcntl is None:
        return None
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return descriptor


def _settle(file: Path, mode: int) -> None:
    """Sync a file to disk and set its permissions. Some libraries write files that only their user can read."""
    sync_file(file)
    file.chmod(mode)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two directories in one step. Returns False if the system or the file system cannot do that."""
    if os.name != "posix":
        return False
    import ctypes

    library = ctypes.CDLL(None)
    names = os.fsencode(one), os.fsencode(other)
    if hasattr(library, "renameat2"):
        return bool(library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)
    if hasattr(library, "renamex_np"):
        return bool(library.renamex_np(*names, _RENAME_SWAP) == 0)
    return False
