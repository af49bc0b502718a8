"""The values of a list in a `.json` file, which is read in parts: in memory, the text of a large file can be huge.

One emoji makes a text of Python four times as large as its file.
"""

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gpt2cli.checkpoints.headers import looks_like
from gpt2cli.data.gzip_files import open_binary
from gpt2cli.data.json_values import DECODER
from gpt2cli.data.utf8 import BOM, read_utf8
from gpt2cli.errors import DataError
from gpt2cli.untrusted import is_utf16

PART = 2**20
"""Bytes that are read at a time, or more if one value has more."""
_GOES_ON = 3
"""Characters after a number that tell whether it goes on, as in 1e+5."""
_BLANKS = re.compile(r"[ \t\n\r]*")


def holds_list(start: bytes) -> bool:
    """Whether a file that starts so can hold a list in JSON."""
    return start.removeprefix(BOM).lstrip(b" \t\n\r").startswith(b"[")


@dataclass(frozen=True)
class JSONList:
    """The values of a `.json` file. Iterating gives each with None, as its line is not known, and reads the file again.

    Raises DataError, with the place, if the file is not UTF-8, or not one list in JSON.
    """

    path: Path
    note = ""

    def __iter__(self) -> Iterator[tuple[None, Any]]:
        with open_binary(self.path) as file:
            try:
                for value in _Reader(self.path, file):
                    yield None, value
            except UnicodeDecodeError:
                read_utf8(self.path)  # raises the error with the place
                raise


class _Reader:
    """The text of a file from the place that is reached, as far as it was read, and the values of its list."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at = "", 0
        self._line, self._column = 0, 0  # of the beginning of the text, counted from 0
        self._number = 0

    def __iter__(self) -> Iterator[Any]:
        self._next()
        self._at += 1  # the bracket
        if self._next() != "]":
            while True:
                self._number += 1
                yield self._value()
                if self._next() != ",":
                    break
                self._at += 1
                if self._next() == "]":
                    raise self._error("a comma before the end of the list", self._at, "after")
            if self._next() != "]":
                raise self._error("Expecting ',' delimiter", self._at, "after")
        self._at += 1
        if self._next():
            raise self._error("Extra data", self._at, "after")

    def _next(self) -> str:
        """Go to the next character that is not blank, and return it; empty at the end of the file."""
        while True:
            blanks = _BLANKS.match(self._text, self._at)
            self._at = blanks.end() if blanks else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def _read_on(self) -> bool:
        """Read a part as long as the rest of the text, and forget what is before it. False at the end of the file."""
        part = self._file.read(max(PART, len(self._text) - self._at))
        decoded = self._decoder.decode(part, final=not part)
        if not part:
            return False
        line, column = self._place(self._at)
        self._text = self._text[self._at :] + decoded
        self._line, self._column, self._at = line, column, 0
        return True

    def _value(self) -> Any:
        """The value that begins here. The text is read on until it holds all of it."""
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                problem = error
            except RecursionError:
                raise DataError(f"{self._path}: bad JSON (nested too deep): give a list of records") from None
            else:
                if end + _GOES_ON <= len(self._text) or not self._read_on():
                    self._at = end
                    return value
                continue
            if not self._read_on():
                raise self._error(problem.msg, problem.pos)

    def _place(self, at: int) -> tuple[int, int]:
        """The line and the column of a place in the text, counted from 0."""
        lines = self._text.count("\n", 0, at)
        return self._line + lines, at - self._text.rfind("\n", 0, at) - 1 if lines else self._column + at

    def _error(self, reason: str, at: int, where: str = "in") -> DataError:
        line, column = self._place(at)
        with open_binary(self._path) as file:
            start = file.read(512)
        if is_utf16(start):
            read_utf8(self._path)
        hint = "if it holds an object a line, name it .jsonl" if reason == "Extra data" else "mend it there"
        return DataError(
            f"{self._path}: bad JSON at line {line + 1}, column {column + 1} ({reason}, {where} record {self._number}; "
            f"looks like {looks_like(start)}): {hint}"
        )
