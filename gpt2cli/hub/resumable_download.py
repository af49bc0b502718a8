"""The download of one file: resumed after an interruption, tried again after an error, checked against its digest.

Nothing here knows about HTTP. The caller opens the connection, and raises `TemporaryError` if trying again may help.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import TypeVar

from gpt2cli.errors import CheckpointError, NetworkError, ResourceError
from gpt2cli.progress import Note, Progress, Received

DELAYS = (0.5, 1.0, 2.0, 4.0)
"""Seconds before each further try."""
LONGEST_WAIT = 60.0
"""The longest pause in seconds, even if a server asks for a longer one."""

DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""The form of `RemoteFile.digest`."""

T = TypeVar("T")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its plain name, its size in bytes, and its digest in hex.

    The digest is the sha256 of the content (64 digits), or git's sha1 of the blob (40) for small files.
    """

    name: str
    size: int
    digest: str


OpenBody = Callable[[int], AbstractContextManager[tuple[int, Iterator[bytes]]]]
"""Opens a body from an offset on; yields the offset where it really starts, and the bytes."""


class TemporaryError(Exception):
    """An error after which another try may succeed. `wait` is the pause in seconds that the server asks for, if any."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class TooSlowError(TemporaryError):
    """Bytes came too slowly. Such bytes do not count as progress."""


class LastingError(NetworkError):
    """A TemporaryError that happened in every try."""


class _MismatchError(Exception):
    """The received bytes differ from the announced size or digest."""


def persist(attempt: Callable[[], T], progress: Progress, position: Callable[[], int] = lambda: 0) -> T:
    """Call `attempt` until it no longer raises TemporaryError, with growing pauses. Then return its result.

    After a try in which `position` grew, and not too slowly, the count of tries starts at 0 again. Raises LastingError
    when the count is above that of DELAYS.
    """
    tries, furthest = 0, position()
    while True:
        try:
            return attempt()
        except TemporaryError as error:
            if position() > furthest and not isinstance(error, TooSlowError):
                tries, furthest = 0, position()
            tries += 1
            if tries > len(DELAYS):
                kept = ", the received bytes are kept" if position() else ""
                after = f" after {tries} tries" if tries > 1 else ""
                raise LastingError(f"{error}{after}: try again later{kept}") from None
            wait = min(DELAYS[tries - 1] if error.wait is None else error.wait, LONGEST_WAIT)
            progress(Note(f"{error}: trying again in {wait:.3g} s"))
        sleep(wait)


def fetch(file: RemoteFile, part: Path, open_body: OpenBody, progress: Progress) -> None:
    """Download a file to `part` and check it. Bytes that `part` already holds are not requested again.

    Raises NetworkError if bytes are still missing after all tries (`part` is kept), and CheckpointError if the digest
    or the size is wrong (`part` is deleted).
    """
    resumed = part.exists()
    try:
        persist(lambda: _attempt(file, part, open_body, progress), progress, lambda: size_of(part))
    except _MismatchError as error:
        part.unlink()
        if not resumed:
            raise CheckpointError(f"{file.name}: {error}: deleted it; try again, or use another source") from None
        # a power cut may have spoilt what an earlier run left
        progress(Note(f"{file.name}: {error}: starting over"))
        fetch(file, part, open_body, progress)


def size_of(path: Path) -> int:
    """The size of a file in bytes; 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


def matches(path: Path, file: RemoteFile) -> bool:
    """Whether the path holds exactly this file."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    return _hash_part(path, file)[0].hexdigest() == file.digest


def _attempt(file: RemoteFile, part: Path, open_body: OpenBody, progress: Progress) -> None:
    if size_of(part) > file.size:
        os.truncate(part, 0)
    digest, done = _hash_part(part, file)
    progress(Received(file.name, done, file.size))
    failure = TemporaryError("the connection closed")
    if done < file.size:
        try:
            with open_body(done) as (start, chunks), part.open("ab") as out:
                if start != done:
                    out.truncate(0)
                    digest, done = _new_digest(file), 0
                for chunk in chunks:
                    done += len(chunk)
                    if done > file.size:
                        raise _MismatchError(f"the server sent more than the announced {file.size} bytes")
                    digest.update(chunk)
                    append(out.fileno(), chunk, part)
                    progress(Received(file.name, done, file.size))
                os.fsync(out.fileno())
        except TemporaryError as error:
            failure = error
    if done < file.size:
        raise type(failure)(f"{file.name}: got {done} of {file.size} bytes ({failure})", failure.wait)
    if digest.hexdigest() != file.digest:
        got, expected = digest.hexdigest()[:12], file.digest[:12]
        raise _MismatchError(f"{digest.name} mismatch (expected {expected}..., got {got}...)")


def _hash_part(part: Path, file: RemoteFile) -> "tuple[hashlib._Hash, int]":
    """The digest and the length of the part on disk."""
    digest = _new_digest(file)
    if not part.exists():
        return digest, 0
    with part.open("rb") as existing:
        while chunk := existing.read(2**20):
            digest.update(chunk)
        return digest, existing.tell()


def _new_digest(file: RemoteFile) -> "hashlib._Hash":
    if len(file.digest) == 64:
        return hashlib.sha256()
    # git's name for a file: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
    return hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)


def append(handle: int, chunk: bytes, part: Path) -> None:
    """Write without a buffer, so that no received byte is lost if this process is killed. Raises ResourceError."""
    try:
        while chunk:
            chunk = chunk[os.write(handle, chunk) :]
    except OSError as error:
        raise ResourceError(f"cannot write {part} ({error.strerror}): free some space, received bytes stay") from None
