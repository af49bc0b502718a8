"""Reading records, each a task and its answer, from an untrusted file."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gpt2cli.data.columns import ALPACA_COLUMNS, LIKELY, Columns, find_columns, names_in
from gpt2cli.data.csv_values import Table
from gpt2cli.data.json_values import NAN, BadLine, kind_of
from gpt2cli.data.values import FORMATS, Values, is_data_file, read_values
from gpt2cli.errors import DataError, UsageError
from gpt2cli.exchanges import Exchange
from gpt2cli.untrusted import is_encodable, shown

Output = Literal["needed", "optional", "unused"]
NAMED_COLUMNS = 3
"""The most names of other columns in a note."""


@dataclass(frozen=True, slots=True)
class Record(Exchange):
    """A task, its input (which may be empty), and the right answer; of a conversation, its last exchange.

    earlier  the exchanges of the conversation before this one
    system   the system text of the conversation
    """

    earlier: tuple[Exchange, ...] = ()
    system: str = ""

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """All exchanges, this one as the last."""
        return (*self.earlier, self)


@dataclass(frozen=True)
class Records:
    """The well-formed records of a file, in its order.

    bad                 the number of malformed records, which were skipped
    with_other_columns  the number of good records with values in other columns, such as `history`; these are not used
    other_columns       the names of some of these columns
    unanswered          the number of conversations that end with a question, which is left out
    columns             the columns that were taken
    dialect             how the fields of a table are separated, in words; empty for JSON
    """

    good: list[Record]
    bad: int
    with_other_columns: int
    other_columns: tuple[str, ...]
    columns: Columns = ALPACA_COLUMNS
    dialect: str = ""
    unanswered: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the person who gave the file."""
        read = "; ".join(filter(None, (self.columns.note(), self.dialect)))
        return tuple(filter(None, (read, self._unused())))

    def _unused(self) -> str:
        if not self.with_other_columns:
            return ""
        names = ", ".join(shown(name, 40) for name in self.other_columns)
        of = f"{self.with_other_columns:,} of {len(self.good):,} records"
        return f"{of} have other fields, which are not used (such as {names})"


def check_suffix(path: Path) -> None:
    """Raise UsageError for a file whose name does not have the ending of a file of records."""
    if not is_data_file(path):
        raise UsageError(f"{path} does not hold records: give a {FORMATS}")


def read_records(
    path: Path, skip_bad: bool = False, columns: Mapping[str, str] | None = None, *, output: Output = "needed"
) -> Records:
    r"""Read a `.json` file (a list of objects), a `.jsonl` file (one object a line), or a `.csv` or `.tsv` file.

    `columns` names the columns of a table, or the keys of the objects, as `columns.parse_columns` gives them; without
    it, `columns.find_columns` finds them. An input of null, or of NaN, which pandas writes for a missing value, means
    no input. Texts are taken unchanged: a `\r\n` or `<|endoftext|>` in one is plain text. Suffixes may be in upper
    case, and files packed by gzip.

    output  needed, or optional: a file without a column of outputs is read, too; or unused. Outputs that are not read
            are empty.

    Raises DataError, with the place, for a file that is not UTF-8 or not in its format, for one without known columns,
    and for a record with a missing or wrong member. The place of a record is its number, counted from 1, and the line
    on which it begins, except in a `.json` file. With `skip_bad` such records, and malformed lines and rows, are
    counted and left out. Raises UsageError for a file with another suffix, and for one without the given `columns`.
    """
    check_suffix(path)
    values = read_values(path, LIKELY.union(name.casefold() for name in (columns or {}).values()))
    if isinstance(values, Table):
        found = find_columns(f"the first line of {path}", values.names, columns, output == "needed")
    else:
        names = names_in((value for _, value in values), columns)
        found = find_columns(str(path), names, columns, output == "needed")
    return _read(path, values, skip_bad, found, None if output == "unused" else found.output)


def _read(path: Path, values: Values, skip_bad: bool, columns: Columns, output: str | None) -> Records:
    """The records, with the output in the column `output`, or without outputs if it is None."""
    checked = replace(columns, output=output)
    good: list[Record] = []
    others: dict[str, None] = {}  # in order, each once
    bad = with_others = 0
    for number, (line, value) in enumerate(values, start=1):
        problem = _problem(value, checked)
        if problem and not skip_bad:
            where = f"record {number}" + (f" (line {line})" if line else "")
            what = f"bad {value.form} at line {line}" if isinstance(value, BadLine) else f"{where} "
            raise DataError(f"{path}: {what}{problem}: mend it, or use --skip-bad")
        if problem:
            bad += 1
            continue
        answer = "" if output is None else value[output]
        good.append(Record(value[columns.instruction], _input_of(value, columns) or "", answer))
        if found := _other_columns(value, columns):
            with_others += 1
            others |= dict.fromkeys(found[: NAMED_COLUMNS - len(others)])
    if not good:
        raise DataError(f"{path} holds no records" + (f" but {bad} bad ones" if bad else "") + ": give another file")
    return Records(good, bad, with_others, tuple(others), columns, values.note if isinstance(values, Table) else "")


def _problem(value: Any, columns: Columns) -> str:
    """The reason why a record is malformed; empty if it is well formed."""
    if isinstance(value, BadLine):
        return (f", column {value.column}" if value.column else "") + f" ({value.reason})"
    if not isinstance(value, dict):
        return f"is {kind_of(value)}, not an object"
    for name in columns.as_dict().values():
        member = _input_of(value, columns) if name == columns.input else value.get(name)
        if member is None and name == columns.input:
            continue
        if name not in value:
            return f"has no {shown(name, 40)}"
        if not isinstance(member, str):
            return f"has {kind_of(member)} as {shown(name, 40)}, not a text"
        if not is_encodable(member):
            return f"has half a surrogate pair in {shown(name, 40)}, which is no character"
    return ""


def _input_of(value: dict[str, Any], columns: Columns) -> Any:
    found = None if columns.input is None else value.get(columns.input)
    return None if found == NAN else found


def _other_columns(value: dict[str, Any], columns: Columns) -> list[str]:
    """The names of columns that are not used but have values."""
    used = (columns.instruction, columns.output, columns.input)
    return [name for name, member in value.items() if name not in used and member and member != NAN]
