"""The values in a `.json` file, which is read in parts: in memory, the text of a large file can be huge.

One emoji makes a text of Python four times as large as its file.
"""

import codecs
import json
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from gpt2cli.checkpoints.headers import looks_like
from gpt2cli.data.gzip_files import open_binary
from gpt2cli.data.json_values import DECODER, kind_of
from gpt2cli.data.utf8 import BOM, read_utf8
from gpt2cli.errors import DataError
from gpt2cli.untrusted import is_utf16, shown

PART = 2**20
"""Bytes that are read at a time, or more if one value has more."""
_GOES_ON = 3
"""Characters after a number that tell whether it goes on, as in 1e+5."""
LONGEST_PART = 16
"""More characters than those of the longest part of JSON that is not a text, such as `-Infinity`."""
MOST_LISTS = 8
"""The most lists that an error names."""
_BLANKS = re.compile(r"[ \t\n\r]*")


def holds_list(start: bytes) -> bool:
    """Whether a file that starts so can hold a list in JSON."""
    return start.removeprefix(BOM).lstrip(b" \t\n\r").startswith(b"[")


@dataclass(frozen=True)
class JSONFile:
    """The values of a `.json` file. Iterating gives each with None, as its line is not known, and reads the file again.

    Raises DataError, with the place, if the file is not UTF-8, or not in JSON.

    key  the name of the list that holds the values, if the file is an object; None if the file is a list, or if the
         object itself is the only value
    """

    path: Path
    key: str | None = None

    @property
    def note(self) -> str:
        """Where the values are, in words; empty if the file is a list, or one record."""
        return "" if self.key is None else f"the records are in its list {shown(self.key, 40)}"

    def __iter__(self) -> Iterator[tuple[None, Any]]:
        with _reading(self.path) as reader:
            if self.key is None:
                found = reader.values()
            else:
                found = next(values for name, values in reader.lists() if name == self.key)
            for value in found:
                yield None, value


def open_object(path: Path) -> JSONFile:
    """The values of the only list in an object. An object with a list of messages is itself a record.

    Raises DataError for a file that holds anything else.
    """
    firsts: dict[str, list[Any]] = {}
    with _reading(path) as reader:
        for name, values in reader.lists():
            if name in firsts:
                raise DataError(f"{path} has several lists {shown(name, 40)}: give a file with one of them")
            firsts[name] = [*islice(values, 1)]
    if any(_is_message(value) for first in firsts.values() for value in first):
        return JSONFile(path)
    names = [name for name, first in firsts.items() if first] or [*firsts]
    if len(names) > 1:
        listed = ", ".join([shown(name, 40) for name in names[:MOST_LISTS]] + ["..."] * (len(names) > MOST_LISTS))
        raise DataError(f"{path} holds an object with several lists ({listed}): give a file with one of them")
    if not names:
        raise DataError(f"{path} holds an object, not a list of records: give a list")
    return JSONFile(path, names[0])


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and not value.keys().isdisjoint(("role", "from"))


@contextmanager
def _reading(path: Path) -> "Iterator[_Reader]":
    """A reader of the file. Raises DataError, with the byte, if the file is not UTF-8."""
    with open_binary(path) as file:
        try:
            yield _Reader(path, file)
        except UnicodeDecodeError:
            read_utf8(path)  # raises the error with the place
            raise


class _Reader:
    """The text of a file from the place that is reached, as far as it was read, and the values in it."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at = "", 0
        self._line, self._column = 0, 0  # of the beginning of the text, counted from 0
        self._number = 0  # of the value in its list, counted from 1

    def values(self) -> Iterator[Any]:
        """The values of the list in the file; or the only value of a file that holds no list."""
        if self._next() == "[":
            yield from self._list()
        else:
            yield self._value()
        self._check_end()

    def lists(self) -> Iterator[tuple[str, Iterator[Any]]]:
        """The names of the lists in an object, and their values. What is left of them is skipped before the next.

        Raises DataError for a file that holds no object.
        """
        if self._next() != "{":
            value = self._value()
            self._check_end()
            raise DataError(f"{self._path} holds {kind_of(value)}, not a list of records: give a list")
        for _ in self._parts("}", "the object"):
            if self._next() != '"':
                raise self._error("Expecting property name enclosed in double quotes", self._at)
            name = self._value()
            if self._next() != ":":
                raise self._error("Expecting ':' delimiter", self._at)
            self._at += 1
            if self._next() == "[":
                values = self._list()
                yield name, values
                deque(values, maxlen=0)
                self._number = 0
            else:
                self._value()
        self._check_end()

    def _list(self) -> Iterator[Any]:
        self._number = 0
        for _ in self._parts("]", "the list"):
            self._number += 1
            yield self._value()

    def _parts(self, end: str, whole: str) -> Iterator[None]:
        """Go to each part of a list or an object, and behind its end."""
        self._at += 1
        if self._next() != end:
            while True:
                yield
                if self._next() != ",":
                    break
                self._at += 1
                if self._next() == end:
                    raise self._error(f"a comma before the end of {whole}", self._at, "after")
            if self._next() != end:
                raise self._error("Expecting ',' delimiter", self._at, "after")
        self._at += 1

    def _check_end(self) -> None:
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
        is_end = not part
        decoded = self._decoder.decode(part, final=is_end)
        del part  # before the text is copied: there may be 100 MB of it
        if is_end:
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
                reason, at = error.msg, error.pos  # not the error, which would keep the text in memory
            except RecursionError:
                raise self._error("nested too deep", self._at) from None
            else:
                if end + _GOES_ON <= len(self._text) or not self._read_on():
                    self._at = end
                    return value
                continue
            # an error long before the end of the text does not come from the end: no need to read the whole file
            is_cut = at > len(self._text) - LONGEST_PART or reason.startswith("Unterminated string")
            if not is_cut or not self._read_on():
                raise self._error(reason, at)

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
        record = f", {where} record {self._number}" if self._number else ""
        return DataError(
            f"{self._path}: bad JSON at line {line + 1}, column {column + 1} "
            f"({reason}{record}; looks like {looks_like(start)}): {hint}"
        )
