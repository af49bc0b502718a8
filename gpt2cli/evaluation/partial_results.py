"""What an interrupted evaluation has found out, kept for the next run of the same command.

One file a model, in `$GPT2CLI_HOME/evaluations`, named by a digest of all that the findings depend on: the model's
files, the data, the settings. So nothing has to be compared on reading, and a changed checkpoint finds nothing of its
older self. Each finding is a line with a digest of its own, since a power cut or a full disk may leave half a line,
and a line that does not agree with its digest is as if it had never been.

It is no cache: when an evaluation is complete, and its results have been shown, its files go. So they cannot grow
beyond what was interrupted, and of that, what nobody came back for in a month goes too.
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
"""Of a file that is read: more than the findings of any evaluation take."""
FORGOTTEN_AFTER = 30 * 24 * 3600
_DIGITS = 16


class PartialResults:
    """The findings under one key. If they cannot be written, `problem` says why, and all goes on without.

    The digests tell what is damaged, not who wrote it: `found` may hold anything that JSON can say.
    """

    def __init__(self, *parts: Any) -> None:
        key = hashlib.sha256(json.dumps([__version__, *parts], sort_keys=True).encode()).hexdigest()[:32]
        self.path = paths.home() / "evaluations" / f"{key}.jsonl"
        self.found: dict[str, Any] = {}
        self.problem = ""
        with suppress(OSError):
            self._read()
        try:
            check_directory(self.path.parent)
        except ResourceError as error:
            self.problem = f"what is done cannot be kept ({error})"

    def _read(self) -> None:
        if not is_file(self.path) or self.path.stat().st_size > MAX_BYTES:
            return
        for line in self.path.read_bytes().splitlines():
            digest, _, text = line.partition(b" ")
            if digest.decode("ascii", "replace") == _digest(text):
                with suppress(ValueError, TypeError):  # TypeError: not a pair, or a name that no dict can hold
                    name, finding = parse_json(text)
                    self.found[name] = finding

    def add(self, name: str, finding: Any) -> None:
        """Keep a finding, anything that JSON can say, under a name."""
        if self.problem:
            return
        text = json.dumps([name, finding]).encode()
        try:
            if not self.path.exists():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                _forget_old(self.path.parent)
            with self.path.open("ab") as file:  # begins a line of its own, whatever a cut has left of the last
                file.write(b"\n" + _digest(text).encode() + b" " + text + b"\n")
        except OSError as error:
            self.problem = f"what is done cannot be kept in {self.path} ({error.strerror or error})"

    def discard(self) -> None:
        """All is done, and safe elsewhere."""
        with suppress(OSError):
            self.path.unlink()


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:_DIGITS]


def _forget_old(directory: Path) -> None:
    for path in directory.glob("*.jsonl"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > FORGOTTEN_AFTER:
                path.unlink()
