"""The lock of a run's directory: `.lock` is locked by the process that works on the run, and `.pid` holds its id."""

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from gpt2cli import untrusted
from gpt2cli.errors import ResourceError

LOCK, PID = ".lock", ".pid"


def take_lock(run: Path, advice: str) -> FileLock:
    """Lock a run's directory. Raises ResourceError, with this advice, if another process has the lock, and OSError."""
    lock = FileLock(run / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ResourceError(f"{run} is locked by {_named(run / PID)}: {advice}") from None
    return lock


def is_locked(run: Path) -> bool:
    """Whether a process works on the run. Changes nothing if the last process that did ended in an orderly way."""
    if not untrusted.is_file(run / PID):  # a process that is killed leaves it there
        return False
    lock = FileLock(run / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def _named(pid: Path) -> str:
    """The process that holds the lock, as `.pid` names it."""
    with suppress(OSError, ValueError):
        if untrusted.is_file(pid):
            return f"pid {int(untrusted.read_at_most(pid, 20) or b'')}"
    return "another run"
