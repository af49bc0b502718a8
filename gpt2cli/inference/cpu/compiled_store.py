"""A directory of files with compiled code that only the user can write to.

The code is executed. So a file is used only if it and its directory belong to the user who runs this process, if nobody
else can write to them, and if the digest at the file's beginning is that of its content.
"""

import hashlib
import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

from gpt2cli.private_files import create_private, is_private, make_private, open_private, reason

ROOM = 2**23
"""Bytes that must be free on the disk. The loops for one precision take a quarter of that."""
STALE = 3600.0
"""The age in seconds at which a temporary file is deleted: the process that wrote it was probably killed."""
UNUSED = 30 * 86_400.0
"""The age in seconds of the last use at which compiled code is deleted: its sources have probably changed."""
_DIGEST_SIZE = hashlib.sha256().digest_size


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
            self.problem = make_private(directory)
            if self.problem is None:
                self.directory = directory
                self.problem = _try_to_write(directory)
        except OSError as error:
            self.problem = reason(directory, error)

    def read(self, name: str) -> bytes | None:
        """The content of a file, or None if it is missing or damaged, or if others can write to it."""
        if self.directory is None:
            return None
        try:
            with open_private(self.directory / name) as file:
                digest, content = file.read(_DIGEST_SIZE), file.read()
        except OSError:
            return None
        with suppress(OSError):
            os.utime(self.directory / name)  # `sweep` deletes what is not used
        return content if hashlib.sha256(content).digest() == digest else None

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a file. If that fails, `problem` says why, and later calls write nothing."""
        if self.directory is None or self.problem is not None:
            return
        temporary = self.directory / f"{secrets.token_hex(8)}.tmp"
        try:
            if not is_private(self.directory.lstat()):
                return
            with create_private(temporary) as file:
                file.write(hashlib.sha256(content).digest() + content)
            temporary.replace(self.directory / name)
        except OSError as error:
            self.problem = reason(self.directory, error)
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""
        if self.directory is not None:
            with suppress(OSError):
                (self.directory / name).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Delete temporary files of processes that were killed while they wrote, and code that is no longer used."""
        if self.directory is None:
            return
        with suppress(OSError):
            for file in self.directory.glob("[!.]*"):
                if file.lstat().st_mtime < time.time() - (STALE if file.suffix == ".tmp" else UNUSED):
                    file.unlink(missing_ok=True)


def _try_to_write(directory: Path) -> str | None:
    """Write an empty file and delete it. Returns the reason if there is no room for more, else None."""
    probe = directory / f"{secrets.token_hex(8)}.tmp"
    with create_private(probe):
        pass
    probe.unlink()
    return f"there is no room in {directory}" if shutil.disk_usage(directory).free < ROOM else None
