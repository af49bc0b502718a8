"""A file of records that is open: its values, the columns to take, and the error that names a malformed record."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from gpt2cli.data.columns import Columns, Names, names_in
from gpt2cli.data.csv_values import Table
from gpt2cli.data.forms import LIKELY, find_columns
from gpt2cli.data.json_values import BadLine, RepeatedKeys, kind_of
from gpt2cli.data.values import Values, read_values
from gpt2cli.errors import DataError
from gpt2cli.untrusted import is_encodable, shown

T = TypeVar("T")


class MalformedError(ValueError):
    """A record is malformed. The text says how, and continues `record 7 ...`."""


@dataclass(frozen=True)
class Parsed(Generic[T]):
    """What the records of a file became, in its order, and the number of malformed ones, which were skipped."""

    good: list[T]
    bad: int


@dataclass(frozen=True)
class DataFile:
    """The values of a file, and the columns to take from them."""

    path: Path
    values: Values
    columns: Columns

    def read(self, read_one: Callable[[dict[str, Any]], T], skip_bad: bool) -> Parsed[T]:
        """Call `read_one` with each record, an object. It raises MalformedError for a malformed one.

        Raises DataError for the first malformed record, with its place: its number, counted from 1, and the line on
        which it begins, except in a `.json` file. With `skip_bad`, only counts them. Raises DataError if none is left.
        """
        good: list[T] = []
        bad = 0
        for number, (line, value) in enumerate(self.values, start=1):
            problem: MalformedError | None = None
            try:
                good.append(read_one(_checked(value)))
            except MalformedError as error:
                problem = error
            if problem and not skip_bad:
                where = f"record {number}" + (f" (line {line})" if line else "")
                what = f"bad {value.form} at line {line}" if isinstance(value, BadLine) else f"{where} "
                raise DataError(f"{self.path}: {what}{problem}: mend it, or use --skip-bad")
            bad += problem is not None
        if not good:
            but = f" but {bad} bad ones" if bad else ""
            raise DataError(f"{self.path} holds no records{but}: give another file")
        return Parsed(good, bad)


def open_data_file(path: Path, columns: Mapping[str, str] | None, needs_output: bool) -> DataFile:
    """Open a file and find its columns. The parameters are those of `forms.find_columns`.

    Raises the errors of `find_columns` and `read_values`.
    """
    likely = LIKELY.union(name.casefold() for name in (columns or {}).values())
    values = read_values(path, likely)
    if isinstance(values, Table):
        names, where = Names(values.names, is_table=True), f"the first line of {path}"
    else:
        names, where = names_in((value for _, value in values), likely), str(path)
    return DataFile(path, values, find_columns(where, names, columns, needs_output))


def _checked(value: Any) -> dict[str, Any]:
    """The value if it is an object. Raises MalformedError for any other."""
    if isinstance(value, BadLine):
        raise MalformedError((f", column {value.column}" if value.column else "") + f" ({value.reason})")
    if not isinstance(value, dict):
        raise MalformedError(f"is {kind_of(value)}, not an object")
    return value


def member(value: dict[str, Any], name: str, place: str) -> Any:
    """The member of this name. Raises MalformedError, with its place, if there is none, or if there are several."""
    if isinstance(value, RepeatedKeys) and name in value.repeated:
        raise MalformedError(f"has several different values of {place}")
    try:
        return value[name]
    except KeyError:
        raise MalformedError(f"has no {place}") from None


def checked_text(value: Any, place: str) -> str:
    """The value if it is a text of valid characters. Raises MalformedError, with its place, for any other."""
    if not isinstance(value, str):
        raise MalformedError(f"has {kind_of(value)} as {place}, not a text")
    if not is_encodable(value):
        raise MalformedError(f"has half a surrogate pair in {place}, which is no character")
    return value


def text_in(value: dict[str, Any], name: str) -> str:
    """The text of this name in a record. Raises MalformedError if there is none."""
    place = shown(name, 40)
    return checked_text(member(value, name, place), place)
