"""Writing files so that a crash leaves either the old file or the new one, whole.

The new file is written inside a directory beside the target, `.NAME.RANDOM.tmp`, and moved to the target's name at the
end. The writer holds a lock on that directory. So the next writer of the same target knows which of these directories
were left by a process that was killed, and deletes them.
"""

import ctypes
import os
import re
import secrets
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
"""Names inside that directory: of the new directory, and of the one that it replaces."""
RANDOM = "[0-9a-z_]{8}"
"""The random part of the directory's name: 8 hexadecimal digits, in version 0.1 also other characters."""
LONGEST_PREFIX = 200
"""Bytes of the target's name that the directory's name holds; a name has at most 255."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_RENAME_SWAP = 2  # sys/stdio.h of macOS


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write to, which becomes `target` at the end, or is deleted if anything goes wrong.

    The bytes are synced to disk before the file gets its name, and the name before this returns. The file gets the
    permissions that the umask gives.
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

    Where the file system cannot do that, the old one is moved away first. If the process is killed between the two
    moves, there is no directory of that name; `recover` then brings the old one back.
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
    """Delete what killed writers of `target` left beside it, after bringing back a directory that one moved away."""
    for left in _leftovers(target):
        _remove_if_dead(left, target)


def sweep(target: Path) -> None:
    """As `recover`, but without checking locks: the caller knows that nobody else is writing `target`.

    So it also works where there are no locks. It also deletes files, as version 0.1 left them.
    """
    for left in _leftovers(target):
        if left.is_symlink() or not left.is_dir():
            left.unlink(missing_ok=True)
        else:
            _bring_back(left, target)
            shutil.rmtree(left, ignore_errors=True)


def write_text(target: Path, text: str) -> None:
    """Write a small file in UTF-8. The old one stays until the new one is on disk."""
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def sync_file(path: Path) -> None:
    """Bring a file's bytes to disk."""
    with path.open("r+b") as file:  # Windows syncs only what may be written
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync leaves the bytes in the disk's own memory
            with suppress(OSError):
                fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
                return
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Bring a directory's names to disk, where the platform can."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    """A locked directory beside `target`, deleted at the end. OLD in it is moved back if there is no target then."""
    with _naming(target):
        recover(target)
        place, lock = _make_workplace(target)
        try:
            yield place
        finally:
            _bring_back(place, target)
            shutil.rmtree(place, ignore_errors=True)
            if lock is not None:
                os.close(lock)


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Make errors of the file system name the target, instead of nothing or the directory beside it."""
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
    """Make the directory, and lock it. If another process deletes it before it is locked, try again."""
    while True:
        place = target.parent / f"{_prefix(target)}{secrets.token_hex(4)}{SUFFIX}"
        place.mkdir()
        if fcntl is None:
            return place, None
        try:
            lock = _lock(place)
        except (BlockingIOError, FileNotFoundError):
            continue
        if lock is None or place.exists():
            return place, lock
        os.close(lock)


def _prefix(target: Path) -> str:
    name = target.name.encode(errors="surrogateescape")[:LONGEST_PREFIX].decode(errors="ignore")
    return f".{name}."


def _leftovers(target: Path) -> list[Path]:
    """The temporary directories and files beside `target` that its writers made."""
    name = re.compile(re.escape(_prefix(target)) + RANDOM + re.escape(SUFFIX))
    try:
        return [path for path in target.parent.iterdir() if name.fullmatch(path.name)]
    except OSError:
        return []


def _remove_if_dead(place: Path, target: Path) -> None:
    """Delete a temporary directory if no writer holds its lock. Without locks, it stays."""
    if fcntl is None or place.is_symlink() or not place.is_dir():
        return
    try:
        lock = _lock(place)
    except OSError:
        return
    if lock is None:
        return
    try:
        _bring_back(place, target)
        shutil.rmtree(place, ignore_errors=True)
    finally:
        os.close(lock)


def _bring_back(place: Path, target: Path) -> None:
    if (place / OLD).exists() and not target.exists():
        (place / OLD).rename(target)


def _lock(directory: Path) -> int | None:
    """Lock a directory and return the handle that holds the lock; None where the file system has no locks.

    Raises BlockingIOError if another process holds it.
    """
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return handle


def _settle(file: Path, mode: int) -> None:
    """Sync a file to disk and set its permissions: some libraries write files that only their user can read."""
    sync_file(file)
    file.chmod(mode)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two directories in one step. False if the system or the file system cannot do that."""
    if os.name != "posix":
        return False
    library = ctypes.CDLL(None)
    names = os.fsencode(one), os.fsencode(other)
    if hasattr(library, "renameat2"):
        return bool(library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)
    if hasattr(library, "renamex_np"):
        return bool(library.renamex_np(*names, _RENAME_SWAP) == 0)
    return False
