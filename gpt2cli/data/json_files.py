"""The values in a `.json` file, which holds a list, or in a `.jsonl` file, which holds one value a line."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2cli.checkpoints.headers import looks_like
from gpt2cli.data.gzip_files import ending, open_binary
from gpt2cli.data.json_lists import JSONList, holds_list
from gpt2cli.data.json_values import DECODER, BadLine, RepeatedKeys, kind_of
from gpt2cli.data.utf8 import BOM, read_utf8
from gpt2cli.errors import DataError
from gpt2cli.untrusted import is_utf16, shown

MOST_LISTS = 8
"""The most lists that an error names."""


@dataclass(frozen=True)
class JSONMember:
    """The values in an object of a `.json` file. Iterating gives each with None, as its line is not known.

    key  the name of the list that holds them; None if the object itself is the only value
    """

    values: list[Any]
    key: str | None

    @property
    def note(self) -> str:
        """Where the values are, in words; empty for the object itself."""
        return "" if self.key is None else f"the records are in its list {shown(self.key, 40)}"

    def __iter__(self) -> Iterator[tuple[None, Any]]:
        return ((None, value) for value in self.values)


@dataclass(frozen=True)
class JSONLines:
    """The values of a `.jsonl` file. Iterating gives each with its line, counted from 1, and reads the file again.

    A line that is not JSON gives a BadLine. Blank lines give nothing.
    """

    path: Path
    note = ""

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        with open_binary(self.path) as file:
            # JSON has no CR within a line, so each CR ends one
            lines = (part for line in file for part in line.splitlines())
            for number, line in enumerate(lines, start=1):
                line = line.removeprefix(BOM) if number == 1 else line
                if line.strip():
                    yield number, _value_of(line)


def open_json(path: Path) -> JSONList | JSONMember | JSONLines:
    """The values of a `.json` or `.jsonl` file.

    A `.json` file can also hold an object with one list beside other members, or with a single conversation.

    Raises DataError, with the place, for a file that is not UTF-8 and for a `.json` file that is not a list in JSON;
    also for a `.jsonl` file that holds one list. The errors in a list are raised while it is iterated.
    """
    with open_binary(path) as file:
        start = file.read(512)
    if not ending(path).startswith(".jsonl"):
        return JSONList(path) if holds_list(start) else _read_object(path)
    if is_utf16(start):
        raise DataError(f"{path} looks like UTF-16: convert it to UTF-8, or give another file")
    if holds_list(start) and _is_one_list(path):
        name = ending(path).replace(".jsonl", ".json")
        raise DataError(f"{path} holds one list, not an object a line: name it {name}")
    return JSONLines(path)


def _read_object(path: Path) -> JSONMember:
    text = read_utf8(path)
    try:
        value = DECODER.decode(text)
    except json.JSONDecodeError as error:
        hint = "if it holds an object a line, name it .jsonl" if error.msg == "Extra data" else "mend it there"
        raise DataError(
            f"{path}: bad JSON at line {error.lineno}, column {error.colno} ({error.msg}; "
            f"looks like {looks_like(text[:512].encode())}): {hint}"
        ) from None
    except RecursionError:
        raise DataError(f"{path}: bad JSON (nested too deep): give a list of records") from None
    if not isinstance(value, dict):
        raise DataError(f"{path} holds {kind_of(value)}, not a list of records: give a list")
    return _list_in(path, value)


def _list_in(path: Path, value: dict[str, Any]) -> JSONMember:
    """The only list in an object. An object with a list of messages is itself a record."""
    lists = {name: member for name, member in value.items() if isinstance(member, list)}
    lists = {name: member for name, member in lists.items() if member} or lists
    if any(_is_message(member[0]) for member in lists.values() if member):
        return JSONMember([value], None)
    if len(lists) > 1:
        names = ", ".join([shown(name, 40) for name in lists][:MOST_LISTS] + ["..."] * (len(lists) > MOST_LISTS))
        raise DataError(f"{path} holds an object with several lists ({names}): give a file with one of them")
    if not lists or isinstance(value, RepeatedKeys):
        raise DataError(f"{path} holds an object, not a list of records: give a list")
    [(name, member)] = lists.items()
    return JSONMember(member, name)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and not value.keys().isdisjoint(("role", "from"))


def _is_one_list(path: Path) -> bool:
    try:
        return isinstance(DECODER.decode(read_utf8(path)), list)
    except (DataError, ValueError, RecursionError):
        return False


def _value_of(line: bytes) -> Any:
    try:
        return DECODER.decode(str(line, "utf-8"))
    except json.JSONDecodeError as error:
        return BadLine(error.colno, error.msg)
    except UnicodeDecodeError as error:
        return BadLine(None, f"not valid UTF-8 at byte {error.start} of the line")
    except RecursionError:
        return BadLine(None, "nested too deep")
