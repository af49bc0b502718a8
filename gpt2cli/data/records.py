"""Reading Alpaca's records from an untrusted file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2cli.data.json_values import NAN, BadLine, kind_of, read_values
from gpt2cli.errors import DataError, UsageError
from gpt2cli.untrusted import is_encodable, shown

SUFFIXES = (".json", ".jsonl")
FIELDS = ("instruction", "output", "input")
NAMED_FIELDS = 3
"""The most names of other fields in a note."""


@dataclass(frozen=True, slots=True)
class Record:
    """A task, its input (which may be empty), and the right answer."""

    instruction: str
    input: str
    output: str


@dataclass(frozen=True)
class Records:
    """The well-formed records of a file, in its order.

    bad                the number of malformed records, which were skipped
    with_other_fields  the number of good records with values in other fields, such as `history`; these are not used
    other_fields       the names of some of these fields
    """

    good: list[Record]
    bad: int
    with_other_fields: int
    other_fields: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the person who gave the file."""
        if not self.with_other_fields:
            return ()
        names = ", ".join(shown(name, 40) for name in self.other_fields)
        of = f"{self.with_other_fields:,} of {len(self.good):,} records"
        return (f"{of} have other fields, which are not used (such as {names})",)


def check_suffix(path: Path) -> None:
    """Raise UsageError for a file whose name does not end in one of SUFFIXES."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path} ends in neither {' nor '.join(SUFFIXES)}: give a file of Alpaca records")


def read_records(path: Path, skip_bad: bool = False) -> Records:
    r"""Read a `.json` file (a list of objects) or a `.jsonl` file (one object a line).

    An object has an `instruction`, an `output`, and optionally an `input`. An `input` of null, or of NaN, which
    pandas writes for a missing value, means no input. Texts are taken unchanged: a `\r\n` or `<|endoftext|>` in one is
    plain text. Suffixes may be in upper case.

    Raises DataError, with the place, for a file that is not UTF-8 or not JSON, and for a record with a missing or wrong
    member. The place of a record is its number, counted from 1, and its line in a `.jsonl` file. With `skip_bad` such
    records, and lines of a `.jsonl` file that are not JSON, are counted and left out. Raises UsageError for a file with
    another suffix.
    """
    check_suffix(path)
    good: list[Record] = []
    others: dict[str, None] = {}  # in order, each once
    bad = with_others = 0
    for number, (line, value) in enumerate(read_values(path), start=1):
        problem = _problem(value)
        if problem and not skip_bad:
            where = f"record {number}" + (f" (line {line})" if line else "")
            what = f"{where} {problem}" if not isinstance(value, BadLine) else f"bad JSON at line {line}{problem}"
            raise DataError(f"{path}: {what}: mend it, or use --skip-bad")
        if problem:
            bad += 1
            continue
        good.append(Record(value["instruction"], _input_of(value) or "", value["output"]))
        if found := _other_fields(value):
            with_others += 1
            others |= dict.fromkeys(found[: NAMED_FIELDS - len(others)])
    if not good:
        raise DataError(f"{path} holds no records" + (f" but {bad} bad ones" if bad else "") + ": give another file")
    return Records(good, bad, with_others, tuple(others))


def _problem(value: Any) -> str:
    """The reason why a record is malformed; empty if it is well formed."""
    if isinstance(value, BadLine):
        return (f", column {value.column}" if value.column else "") + f" ({value.reason})"
    if not isinstance(value, dict):
        return f"is {kind_of(value)}, not an object"
    for name in FIELDS:
        member = _input_of(value) if name == "input" else value.get(name)
        if member is None and name == "input":
            continue
        if name not in value:
            return f"has no {name!r}"
        if not isinstance(member, str):
            return f"has {kind_of(member)} as {name!r}, not a text"
        if not is_encodable(member):
            return f"has half a surrogate pair in {name!r}, which is no character"
    return ""


def _input_of(value: dict[str, Any]) -> Any:
    found = value.get("input")
    return None if found == NAN else found


def _other_fields(value: dict[str, Any]) -> list[str]:
    """The names of fields that are not used but have values."""
    return [name for name, member in value.items() if name not in FIELDS and member and member != NAN]
