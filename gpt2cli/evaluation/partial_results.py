"""The results of an interrupted evaluation, from which the next run of the same command continues.

Each model has a file in `$GPT2CLI_HOME/evaluations`. Its name is a digest of everything that the results depend on:
the model's files, the data and the settings. So the results of an older version of a checkpoint are never used. Every
result is a line with a digest, because a power cut or a full disk may leave half a line. Damaged lines are ignored.

This is no cache: the files are deleted when the evaluation is complete and its results have been shown. A file of a
run that was never continued is deleted after a month.
"""

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpt2cli import __version__, paths
from gpt2cli.errors import ResourceError
from gpt2cli.outputs import check_directory
from gpt2cli.untrusted import is_file, parse_json

MAX_BYTES = 2**30
"""The size of the largest file that is read. The results of an evaluation take less."""
MAX_AGE = 30 * 24 * 3600
"""Seconds after which an unused file is deleted."""


class PartialResults:
    """The results of one model. If they cannot be written, `problem` says why, and nothing more is written.

    findings  the results by name. They come from an untrusted file, and may be any JSON values.
    """

    def __init__(self, *parts: Any) -> None:
        key = hashlib.sha256(json.dumps([__version__, *parts], sort_keys=True).encode()).hexdigest()[:32]
        self.path = paths.evaluations() / f"{key}.jsonl"
        self.findings: dict[str, Any] = {}
        self.problem = ""
        with suppress(OSError):
            self._read()
        try:
            check_directory(self.path.parent)
        except ResourceError as error:
            self.problem = f"partial results cannot be saved ({error})"

    def _read(self) -> None:
        if not is_file(self.path) or self.path.stat().st_size > MAX_BYTES:
            return
        for line in self.path.read_bytes().splitlines():
            digest, _, text = line.partition(b" ")
            if digest.decode("ascii", "replace") == _digest(text):
                with suppress(ValueError, TypeError):  # TypeError: not a pair, or a name that is not hashable
                    name, finding = parse_json(text)
                    self.findings[name] = finding

    def add(self, name: str, finding: Any) -> None:
        """Save a result, any JSON value, under a name."""
        if self.problem:
            return
        text = json.dumps([name, finding]).encode()
        try:
            if not self.path.exists():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                _delete_old(self.path.parent)
            with self.path.open("ab") as file:  # the first newline ends an incomplete line
                file.write(b"\n" + _digest(text).encode() + b" " + text + b"\n")
        except OSError as error:
            self.problem = f"partial results cannot be saved in {self.path} ({error.strerror or error})"

    def discard(self) -> None:
        """Delete the file. The results are complete and stored elsewhere."""
        with suppress(OSError):
            self.path.unlink()


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]


def _delete_old(directory: Path) -> None:
    for path in directory.glob("*.jsonl"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > MAX_AGE:
                path.unlink()
