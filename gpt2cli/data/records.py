"""Reading records, each a task and its answer or a conversation, from an untrusted file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpt2cli.counted import counted
from gpt2cli.data.columns import ALPACA_COLUMNS, NUMBERING, Columns, folded
from gpt2cli.data.data_file import checked_text, member, open_data_file, text_in
from gpt2cli.data.forms import PREFERRED
from gpt2cli.data.json_values import NAN
from gpt2cli.data.messages import read_conversation
from gpt2cli.data.values import FORMATS, is_data_file
from gpt2cli.errors import DataError, UsageError
from gpt2cli.exchanges import Exchange
from gpt2cli.untrusted import shown

Output = Literal["needed", "optional", "unused"]
NAMED_COLUMNS = 3
"""The most names of other columns in a note."""
NO_INPUT = frozenset(("<noinput>", "<no input>"))
"""Inputs that mean no input in data that was made like Alpaca's, in lower case."""


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
    form                the name of the file's format
    with_other_columns  the number of good records with values in other columns, such as `history`; these are not used
    other_columns       the names of some of these columns
    columns             the columns that were taken
    container           how the file holds the records, in words; empty if its ending says it
    unanswered          the number of conversations that end with a question, which is left out
    without_input       the number of records with one of NO_INPUT as their input
    """

    good: list[Record]
    bad: int
    form: str
    with_other_columns: int
    other_columns: tuple[str, ...]
    columns: Columns = ALPACA_COLUMNS
    container: str = ""
    unanswered: int = 0
    without_input: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the person who gave the file."""
        read = "; ".join(filter(None, (self._told_form(), self.columns.note(), self.container)))
        return tuple(filter(None, (read, self._left_out(), self._inputs(), self._unused())))

    def _told_form(self) -> str:
        if self.columns.kind == "conversations":
            turns = sum(len(record.exchanges) for record in self.good)
            return f"{counted(len(self.good), 'conversation')}, {counted(turns, 'turn')}, {self.form}"
        return self.form if _is_preference(self.columns) else ""

    def _left_out(self) -> str:
        end = "ends" if self.unanswered == 1 else "end"
        left_out = f"{counted(self.unanswered, 'conversation')} {end} with a question, which is left out"
        return left_out if self.unanswered else ""

    def _inputs(self) -> str:
        records = counted(self.without_input, "record")
        has = "has" if self.without_input == 1 else "have"
        return f"{records} {has} <noinput> as input, which is read as no input" if self.without_input else ""

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
    it, `forms.find_columns` finds them. An input of null, or of NaN, which pandas writes for a missing value, means
    no input, and so does one of NO_INPUT. Texts are taken unchanged: a `\r\n` or `<|endoftext|>` in one is plain text.
    System texts, and the texts of conversations, are without blank space at either end. Suffixes may be in upper
    case, and files packed by gzip.

    output  needed, or optional: a file without a column of outputs is read, too; or unused. Outputs that are not read
            are empty. A conversation that ends with a question has this question as its last exchange if outputs are
            unused, or if it has no answer at all; else the question is left out.

    Raises DataError, with the place, for a file that is not UTF-8 or not in its format, for one without known columns,
    for plain text, and for a record with a missing or wrong member. The place of a record is its number, counted from
    1, and the line on which it begins, except in a `.json` file. With `skip_bad` such records, and malformed lines and
    rows, are counted and left out. Raises UsageError for a file with another suffix, and for one without the given
    `columns`.
    """
    check_suffix(path)
    file = open_data_file(path, columns, needs_output=output == "needed")
    if file.columns.text is not None:
        raise DataError(f"{path} holds plain text without answers: give records with an instruction and an output")
    reader = _Reader(file.columns, output)
    parsed = file.read(reader.conversation if file.columns.kind == "conversations" else reader.record, skip_bad)
    return Records(
        good=parsed.good,
        bad=parsed.bad,
        form=reader.form,
        with_other_columns=reader.with_others,
        other_columns=tuple(reader.others),
        columns=file.columns,
        container=file.values.note,
        unanswered=reader.unanswered,
        without_input=reader.without_input,
    )


class _Reader:
    """Makes the records of a file, and counts what its notes say."""

    def __init__(self, columns: Columns, output: Output) -> None:
        self._columns, self._is_question = columns, output == "unused"
        self._output = None if self._is_question else columns.output
        self._used = frozenset(columns.as_dict().values())
        self._styles: dict[bool, None] = {}  # in order, each once
        self.others: dict[str, None] = {}
        self.with_others = self.unanswered = self.without_input = 0

    @property
    def form(self) -> str:
        """The name of the format."""
        if self._columns.kind == "conversations":
            names = {False: "OpenAI's messages", True: "ShareGPT's conversations"}
            return " and ".join(names[is_share_gpt] for is_share_gpt in self._styles)
        if _is_preference(self._columns):
            return "preferences, of which the chosen answers are learned"
        pair = f"{self._columns.instruction}/{self._columns.output}"
        return "Alpaca's records" if pair == "instruction/output" else f"{pair} records"

    def record(self, value: dict[str, Any]) -> Record:
        """The record in an object. Raises MalformedError for a wrong one."""
        columns = self._columns
        assert columns.instruction is not None  # or else the file holds no records
        instruction = text_in(value, columns.instruction)
        output = "" if self._output is None else text_in(value, self._output)
        input = _optional_text(value, columns.input)
        system = _optional_text(value, columns.system).strip()
        if folded(input) in NO_INPUT:
            self.without_input += 1
            input = ""
        self._count_others(value, ())
        return Record(instruction, input, output, system=system)

    def conversation(self, value: dict[str, Any]) -> Record:
        """The conversation in an object. Raises MalformedError for a wrong one."""
        found = read_conversation(value, self._columns)
        *earlier, last = found.exchanges or (Exchange(found.question),)
        if self._is_question:
            earlier, last = ([*found.exchanges], Exchange(found.question)) if found.question else (earlier, last)
            last = Exchange(last.instruction)
        elif found.question and found.exchanges:
            self.unanswered += 1
        self._styles[found.is_share_gpt] = None
        self._count_others(value, found.others)
        return Record(last.instruction, "", last.output, tuple(earlier), found.system)

    def _count_others(self, value: dict[str, Any], others: Iterable[str]) -> None:
        """Count a record with values in columns that are not used, or with such `others`. A record's number is none."""
        used = self._used
        names = [name for name, each in value.items() if name not in used and each and each != NAN]
        names = [name for name in (*names, *others) if folded(name) not in NUMBERING]
        if names:
            self.with_others += 1
            self.others |= dict.fromkeys(names[: NAMED_COLUMNS - len(self.others)])


def _is_preference(columns: Columns) -> bool:
    return folded(columns.output or columns.messages or "") == PREFERRED


def _optional_text(value: dict[str, Any], column: str | None) -> str:
    """The text in an optional column; empty if there is none. Raises MalformedError if it is no text."""
    if column is None or column not in value:
        return ""
    place = shown(column, 40)
    found = member(value, column, place)
    return "" if found is None or found == NAN else checked_text(found, place)
