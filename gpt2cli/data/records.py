"""Reading Alpaca's records from a file that somebody else wrote."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from gpt2cli.checkpoints.files import looks_like
from gpt2cli.errors import DataError, UsageError

BOM = b"\xef\xbb\xbf"
SUFFIXES = (".json", ".jsonl")
_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}


@dataclass(frozen=True, slots=True)
class Record:
    """One task, what it is about if anything, and the right answer."""

    instruction: str
    input: str
    output: str


@dataclass(frozen=True)
class Records:
    """The good records of a file, in its order, and how many others were skipped."""

    good: list[Record] = field(default_factory=list)
    bad: int = 0


def read_records(path: Path, skip_bad: bool = False) -> Records:
    """Read a `.json` file (a list of objects) or a `.jsonl` file (an object a line): instruction, output, maybe input.

    Raises DataError for a file that is not UTF-8 or not JSON, naming the place, and for a record with a missing or
    wrong member, naming its index, which counts from 0. With `skip_bad` such records, and lines of a `.jsonl` that are
    no JSON, are counted and left out. Raises UsageError for a file with another ending.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path} ends in neither {' nor '.join(SUFFIXES)}: give a file of Alpaca records")
    values = _read_json(path) if path.suffix == ".json" else _read_lines(path, skip_bad)
    good, bad = [], 0
    for index, value in enumerate(values):
        problem = _problem(value)
        if not problem:
            good.append(Record(value["instruction"], value.get("input") or "", value["output"]))
        elif skip_bad:
            bad += 1
        else:
            what = value.reason if isinstance(value, _BadLine) else problem
            raise DataError(f"{path}: record {index} (counted from 0) {what}: mend it, or use --skip-bad")
    if not good:
        raise DataError(f"{path} holds no records" + (f" but {bad} bad ones" if bad else "") + ": give another file")
    return Records(good, bad)


def read_utf8(path: Path) -> str:
    """A file's text without a byte order mark. Raises DataError for what is not UTF-8, naming the byte."""
    content = path.read_bytes()
    start = len(BOM) if content.startswith(BOM) else 0
    try:
        return str(memoryview(content)[start:], "utf-8")
    except UnicodeDecodeError as error:
        where = f"{path} is not valid UTF-8 at byte {start + error.start}"
    guess = looks_like(content[:512])
    raise DataError(f"{where} (looks like {guess}): convert it to UTF-8, or give another file")


@dataclass(frozen=True)
class _BadLine:
    """What stands for a record on a line that could not be read."""

    reason: str


def _read_json(path: Path) -> list[Any]:
    text = read_utf8(path)
    try:
        values = _parse(text)
    except json.JSONDecodeError as error:
        hint = "if it holds an object a line, name it .jsonl" if error.msg == "Extra data" else "mend it there"
        raise DataError(
            f"{path}: bad JSON at line {error.lineno}, column {error.colno} ({error.msg}; "
            f"looks like {looks_like(text[:512].encode())}): {hint}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: bad JSON ({_reason(error)}): give a list of records") from None
    if not isinstance(values, list):
        raise DataError(f"{path} holds {_KINDS.get(type(values), 'null')}, not a list of records: give a list")
    return values


def _read_lines(path: Path, skip_bad: bool) -> Iterator[Any]:
    """The objects of a `.jsonl`, a line at a time; blank lines count for nothing."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(BOM) if number == 1 else line
            if not line.strip():
                continue
            try:
                yield _parse(str(line, "utf-8"))
            except (ValueError, RecursionError) as error:
                if not skip_bad:
                    column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
                    where = f"{path}: bad JSON at line {number}{column}"
                    raise DataError(f"{where} ({_reason(error)}): mend it, or use --skip-bad") from None
                yield _BadLine(_reason(error))


def _parse(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    if isinstance(error, UnicodeDecodeError):
        return f"not valid UTF-8 at byte {error.start} of the line"
    return "nested too deep" if isinstance(error, RecursionError) else str(error).split(";")[0]


def _problem(value: Any) -> str:
    """What is wrong with a record, or nothing."""
    if not isinstance(value, dict):
        return f"is {_KINDS.get(type(value), 'null')}, not an object"
    for name in ("instruction", "output", "input"):
        member = value.get(name)
        if member is None and name == "input":
            continue
        if name not in value:
            return f"has no {name!r}"
        if not isinstance(member, str):
            return f"has {_KINDS.get(type(member), 'null')} as {name!r}, not a text"
        if not _is_unicode(member):
            return f"has half a surrogate pair in {name!r}, which is no character"
    return ""


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
