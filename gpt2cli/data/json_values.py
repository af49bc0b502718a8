"""The values in a `.json` file that holds a list, or in a `.jsonl` file, which holds one value a line.

Many programs write such files, and not all of them write valid JSON. A value that JSON does not have, such as the NaN
that pandas writes for a missing one, becomes an `Unusable`. An object with two values of one name, of which Python's
parser takes the last, becomes a `RepeatedKeys`. So an error can name the record that holds it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2cli.checkpoints.headers import looks_like
from gpt2cli.data.gzip_files import ending, open_binary
from gpt2cli.data.utf8 import BOM, read_utf8
from gpt2cli.errors import DataError
from gpt2cli.untrusted import is_utf16, shown

MAX_DIGITS = 640
"""Digits of the longest number that is read. Python can be configured to refuse longer ones."""
MOST_LISTS = 8
"""The most lists that an error names."""
_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}


@dataclass(frozen=True, slots=True)
class Unusable:
    """Stands for a value that JSON does not have. `what` names it."""

    what: str


NAN = Unusable("NaN")


class RepeatedKeys(dict[str, Any]):
    """An object in which a key has several different values. `repeated` holds these keys, and the object their last."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = {name for name, value in pairs if value != self[name]}


@dataclass(frozen=True, slots=True)
class BadLine:
    """Stands for a line that is not JSON, or a malformed row, with the reason, and the column if it is known."""

    column: int | None
    reason: str
    form: str = "JSON"


def kind_of(value: Any) -> str:
    """The kind of a value in words, with an article if English needs one."""
    return (
        value.what
        if isinstance(value, Unusable)
        else _KINDS.get(dict if isinstance(value, dict) else type(value), "null")
    )


@dataclass(frozen=True)
class JSONList:
    """The values of a `.json` file. Iterating gives each with None, as its line is not known.

    key  the name of the list in the file's object; None if the file holds only a list
    """

    values: list[Any]
    key: str | None = None

    @property
    def note(self) -> str:
        """Where the values are, in words; empty if the file holds only a list."""
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


def open_json(path: Path) -> JSONList | JSONLines:
    """The values of a `.json` or `.jsonl` file.

    A `.json` file can also hold an object with one list beside other members, or a single conversation.

    Raises DataError, with the place, for a file that is not UTF-8 and for a `.json` file that is not a list in JSON;
    also for a `.jsonl` file that holds one list.
    """
    if not ending(path).startswith(".jsonl"):
        return _read_list(path)
    with open_binary(path) as file:
        start = file.read(512)
    if is_utf16(start):
        raise DataError(f"{path} looks like UTF-16: convert it to UTF-8, or give another file")
    if _holds_one_list(path, start):
        name = ending(path).replace(".jsonl", ".json")
        raise DataError(f"{path} holds one list, not an object a line: name it {name}")
    return JSONLines(path)


def _read_list(path: Path) -> JSONList:
    text = read_utf8(path)
    try:
        values = _parse(text)
    except json.JSONDecodeError as error:
        hint = "if it holds an object a line, name it .jsonl" if error.msg == "Extra data" else "mend it there"
        raise DataError(
            f"{path}: bad JSON at line {error.lineno}, column {error.colno} ({error.msg}; "
            f"looks like {looks_like(text[:512].encode())}): {hint}"
        ) from None
    except RecursionError:
        raise DataError(f"{path}: bad JSON (nested too deep): give a list of records") from None
    if isinstance(values, dict):
        return _list_in(path, values)
    if not isinstance(values, list):
        raise DataError(f"{path} holds {kind_of(values)}, not a list of records: give a list")
    return JSONList(values)


def _list_in(path: Path, value: dict[str, Any]) -> JSONList:
    """The only list in an object. An object with a list of messages is itself a record."""
    lists = {name: member for name, member in value.items() if isinstance(member, list)}
    lists = {name: member for name, member in lists.items() if member} or lists
    if any(_is_message(member[0]) for member in lists.values() if member):
        return JSONList([value])
    if len(lists) > 1:
        names = ", ".join([shown(name, 40) for name in lists][:MOST_LISTS] + ["..."] * (len(lists) > MOST_LISTS))
        raise DataError(f"{path} holds an object with several lists ({names}): give a file with one of them")
    if not lists or isinstance(value, RepeatedKeys):
        raise DataError(f"{path} holds an object, not a list of records: give a list")
    [(name, member)] = lists.items()
    return JSONList(member, name)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and not value.keys().isdisjoint(("role", "from"))


def _holds_one_list(path: Path, start: bytes) -> bool:
    if not start.removeprefix(BOM).lstrip().startswith(b"["):
        return False
    try:
        return isinstance(_parse(read_utf8(path)), list)
    except (DataError, ValueError, RecursionError):
        return False


def _value_of(line: bytes) -> Any:
    try:
        return _parse(str(line, "utf-8"))
    except json.JSONDecodeError as error:
        return BadLine(error.colno, error.msg)
    except UnicodeDecodeError as error:
        return BadLine(None, f"not valid UTF-8 at byte {error.start} of the line")
    except RecursionError:
        return BadLine(None, "nested too deep")


def _parse(text: str) -> Any:
    return json.loads(text, parse_constant=Unusable, parse_int=_integer, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else RepeatedKeys(pairs)


def _integer(digits: str) -> int | Unusable:
    return int(digits) if len(digits) <= MAX_DIGITS else Unusable(f"a number of more than {MAX_DIGITS} digits")
