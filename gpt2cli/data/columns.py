"""The columns that hold the fields of each record: their names, and the option that names them.

A column is a column of a table or a key of JSON objects. `forms.find_columns` determines the columns of a file.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gpt2cli.errors import UsageError
from gpt2cli.untrusted import is_encodable, shown, shown_name

FIELDS = ("instruction", "output", "input", "system", "messages", "text")
OWN_NAMES = {"messages": ("messages", "conversations"), "system": ("system", "system_prompt")}
"""The usual names of the columns for a field. Any other field has one, its own name."""
EXAMPLE = "instruction=question,output=answer"
NUMBERING = ("", "id", "index", "no", "nr", "number")
"""Names of columns that number the records, in lower case."""
NAMED = 8
"""The most columns that an error names."""

Kind = Literal["records", "conversations", "text"]


@dataclass(frozen=True)
class Columns:
    """The name of the column of each field; None if no column holds it.

    Plain text has only `text`. Conversations have `messages`, and perhaps a column of system texts. Their column
    `instruction`, if there is one, holds the beginning of a conversation whose messages begin with an answer. All
    other files have an instruction.
    """

    instruction: str | None = None
    output: str | None = None
    input: str | None = None
    system: str | None = None
    messages: str | None = None
    text: str | None = None

    @property
    def kind(self) -> Kind:
        """What the file holds."""
        if self.text is not None:
            return "text"
        return "records" if self.messages is None else "conversations"

    def as_dict(self) -> dict[str, str]:
        """The column of each field, in the order of FIELDS."""
        names = {name: getattr(self, name) for name in FIELDS}
        return {name: column for name, column in names.items() if column is not None}

    def note(self) -> str:
        """Which columns with other names than the usual ones are taken, in words; empty if there are none."""
        others = {name: column for name, column in self.as_dict().items() if column not in OWN_NAMES.get(name, (name,))}
        taken = ", ".join(f"{shown_name(column)} as {name}" for name, column in others.items())
        return f"takes {taken}" if taken else ""


ALPACA_COLUMNS = Columns("instruction", "output", "input")


@dataclass(frozen=True)
class Names:
    """The names of a file's columns, in its order.

    lists     those that hold lists of objects, such as messages
    is_table  whether the file is a table, which holds no lists
    """

    names: Collection[str]
    lists: Collection[str] = ()
    is_table: bool = False


def names_in(values: Iterable[Any], known: Collection[str]) -> Names:
    """The names of the columns in JSON values, in their order. Values that are not objects have none.

    The first value of a column that is not null decides whether it holds lists. Of the columns whose names are not
    among the `known` ones, which are in lower case, returns only the first few, whatever the size of the file.
    """
    names: dict[str, None] = {}
    undecided, lists = set[str](), list[str]()
    for value in values:
        if not isinstance(value, dict):
            continue
        if not names.keys() >= value.keys():
            for name in value:
                if name not in names and (len(names) <= NAMED or folded(name) in known):
                    names[name] = None
                    undecided.add(name)
        for name in [name for name in undecided if value.get(name) is not None]:
            undecided.remove(name)
            if _is_list_of_objects(value[name]):
                lists.append(name)
    return Names([*names], lists)


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and (not value or isinstance(value[0], dict))


def parse_columns(text: str) -> dict[str, str]:
    """The column of each field from `FIELD=COLUMN,FIELD=COLUMN`, where FIELD is one of FIELDS.

    A column's name may contain commas and equals signs. Raises UsageError for another form.
    """
    columns: dict[str, str] = {}
    for part in re.split(rf",(?=\s*(?:{'|'.join(FIELDS)})\s*=)", text):
        name, equals, column = part.partition("=")
        if name.strip() in columns:
            raise UsageError(f"--columns names {name.strip()} twice: leave one out")
        if not equals and name.strip() in FIELDS:
            raise UsageError(f"--columns {name.strip()} names no column: write FIELD=COLUMN, as in {EXAMPLE}")
        if not equals or name.strip() not in FIELDS:
            raise UsageError(
                f"--columns {shown(text)} does not begin with {', '.join(FIELDS[:-1])} or {FIELDS[-1]}: "
                f"write FIELD=COLUMN, as in {EXAMPLE}"
            )
        columns[name.strip()] = column.strip()
    return checked(columns)


def checked(columns: Mapping[str, str]) -> dict[str, str]:
    """The columns in the order of FIELDS. Raises UsageError unless they name columns of different names.

    Raises it also for `text` beside any other field, and for `messages` beside any other but `system`.
    """
    for name, column in columns.items():
        if name not in FIELDS or not column or not is_encodable(column):
            raise UsageError(f"--columns cannot take {shown(column)} as {shown(name)}: write it as in {EXAMPLE}")
    names = [*columns.values()]
    if repeated := next((column for column in names if names.count(column) > 1), None):
        raise UsageError(f"--columns takes {shown(repeated)} twice: name another column")
    for field, allowed in (("text", ("text",)), ("messages", ("messages", "system"))):
        others = [name for name in columns if name not in allowed]
        if field in columns and others:
            raise UsageError(f"--columns takes {field}, which goes without {others[0]}: leave one of them out")
    return {name: columns[name] for name in FIELDS if name in columns}


def columns_text(columns: Mapping[str, str] | None) -> str | None:
    """The columns as `parse_columns` reads them."""
    return None if columns is None else ",".join(f"{name}={column}" for name, column in columns.items())


def folded(name: str) -> str:
    """A name without what does not count in a comparison: case, and blanks around it."""
    return name.strip().casefold()


def match(name: str, names: Collection[str]) -> str | None:
    """The column of this name; if there is none, one whose name differs only in case or in blanks around it."""
    if name in names:
        return name
    return next((each for each in names if folded(each) == folded(name)), None)


def first_match(wanted: Collection[str], names: Collection[str]) -> str | None:
    """The column of the first wanted name that `match` finds."""
    return next((column for name in wanted if (column := match(name, names)) is not None), None)


def listed(names: Collection[str]) -> str:
    """The first names, for an error message."""
    return ", ".join([shown(name, 30) for name in names][:NAMED] + ["..."] * (len(names) > NAMED))
