"""The columns that hold the instruction, the output and the input of each record.

A column is a column of a table or a key of JSON objects. A file has one form, which the names of all its columns
decide. Alpaca's own names win. Otherwise the file has the first of FORMS whose instruction and output it has, in upper
or lower case. Conversations are recognized, but they are not records.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gpt2cli.errors import DataError, UsageError
from gpt2cli.untrusted import is_encodable, shown, shown_name

FIELDS = ("instruction", "output", "input")


class Form(NamedTuple):
    """The columns of a common form. The input is in the first of `inputs` that a file has; it may have none."""

    instruction: str
    output: str
    inputs: tuple[str, ...] = ("input", "context")


FORMS = (
    Form("instruction", "output", ("input",)),  # Alpaca
    Form("instruction", "response"),  # Dolly
    Form("question", "answer"),
    Form("prompt", "completion"),  # OpenAI
    Form("prompt", "response"),
    Form("input", "output", ("context",)),
)
"""The forms that are recognized, the most likely one first."""
CONVERSATIONS = {"messages": "OpenAI's format", "conversations": "ShareGPT's format"}
"""The columns that hold whole conversations, and the names of their formats."""
LIKELY = frozenset(
    {*CONVERSATIONS, *(name for form in FORMS for name in (form.instruction, form.output, *form.inputs))}
)
"""The names of all these columns, in lower case."""

EXAMPLE = "instruction=question,output=answer"
NAMED = 8
"""The most columns that an error names."""
_SAFE = re.compile(r"[\w.-]+( [\w.-]+)*")
_NUMBERING = ("", "id", "index", "no", "nr", "number")


@dataclass(frozen=True)
class Columns:
    """The names of a file's columns. `output` and `input` are None if no column holds them."""

    instruction: str
    output: str | None
    input: str | None

    def as_dict(self) -> dict[str, str]:
        """The column of each field, in the order of FIELDS."""
        names = {name: getattr(self, name) for name in FIELDS}
        return {name: column for name, column in names.items() if column is not None}

    def note(self) -> str:
        """Which columns are taken, in words; empty for Alpaca's own names."""
        taken = [f"{shown_name(column)} as {name}" for name, column in self.as_dict().items()]
        return "" if all(name == column for name, column in self.as_dict().items()) else f"takes {', '.join(taken)}"


ALPACA_COLUMNS = Columns(*FIELDS)


def parse_columns(text: str) -> dict[str, str]:
    """The column of each field from `FIELD=COLUMN,FIELD=COLUMN`, where FIELD is one of FIELDS.

    A column's name may contain commas and equals signs. Raises UsageError for another form.
    """
    columns: dict[str, str] = {}
    for part in re.split(rf",(?=\s*(?:{'|'.join(FIELDS)})\s*=)", text):
        name, equals, column = part.partition("=")
        if name.strip() in columns:
            raise UsageError(f"--columns names {name.strip()} twice: leave one out")
        if not equals or name.strip() not in FIELDS:
            raise UsageError(
                f"--columns {shown(text)} does not begin with {', '.join(FIELDS[:-1])} or {FIELDS[-1]}: "
                f"write FIELD=COLUMN, as in {EXAMPLE}"
            )
        columns[name.strip()] = column.strip()
    return checked(columns)


def checked(columns: Mapping[str, str]) -> dict[str, str]:
    """The columns in the order of FIELDS. Raises UsageError unless they name columns of different names."""
    for name, column in columns.items():
        if name not in FIELDS or not column or not is_encodable(column):
            raise UsageError(f"--columns cannot take {shown(column)} as {shown(name)}: write it as in {EXAMPLE}")
    names = [*columns.values()]
    if repeated := next((column for column in names if names.count(column) > 1), None):
        raise UsageError(f"--columns takes {shown(repeated)} twice: name another column")
    return {name: columns[name] for name in FIELDS if name in columns}


def columns_text(columns: Mapping[str, str] | None) -> str | None:
    """The columns as `parse_columns` reads them."""
    return None if columns is None else ",".join(f"{name}={column}" for name, column in columns.items())


def names_in(values: Iterable[Any], asked: Mapping[str, str] | None) -> list[str]:
    """The names of the columns in JSON values, in their order. Values that are not objects have none.

    Ends as soon as the names decide which columns are taken. Of columns that can have no effect, returns only the first
    few, whatever the size of the file.
    """
    asked = asked or {}
    decisive = {asked.get(name, name) for name in FIELDS} if asked else set(FIELDS[:2])
    known = LIKELY | {_folded(name) for name in asked.values()}
    names: dict[str, None] = {}
    for value in values:
        if isinstance(value, dict) and not names.keys() >= value.keys():
            for name in value:
                if len(names) <= NAMED or _folded(name) in known:
                    names[name] = None
            if names.keys() >= decisive:
                break
    return [*names]


def find_columns(
    where: str, names: Collection[str], asked: Mapping[str, str] | None, needs_output: bool = True
) -> Columns:
    """The columns to take from a file with columns of these names. `where` names the file in errors.

    asked         the columns that the user named; every other field has the same name as its column
    needs_output  whether a file without a column of outputs is refused

    Raises UsageError if the file lacks one that was asked for, and DataError if no known pair is there.
    """
    if asked:
        return _asked(where, names, asked, needs_output)
    if set(FIELDS[:2]) <= set(names):
        return ALPACA_COLUMNS
    found = [taken for form in FORMS if (taken := _in_form(form, names))]
    complete = [taken for taken in found if taken.output is not None]
    if complete or (found and not needs_output):
        return (complete or found)[0]
    if set(names) <= set(FIELDS):  # the error about the first record says more
        return ALPACA_COLUMNS
    for name, origin in CONVERSATIONS.items():
        if _match(name, names) is not None:
            raise DataError(
                f"{where} holds conversations ({name!r}: {origin}), which are not read yet: "
                "give records, each with an instruction and an output"
            )
    pairs = ", ".join(f"{form.instruction}/{form.output}" for form in FORMS)
    columns = "column" if len(names) == 1 else "columns"
    advice = _advice(names, FIELDS[:2] if needs_output else FIELDS[:1])
    raise DataError(f"{where} has the {columns} {_listed(names)}, and none of the known pairs ({pairs}): {advice}")


def _in_form(form: Form, names: Collection[str]) -> Columns | None:
    """The columns of a form that a file has; None if it lacks the instruction."""
    instruction, output = _match(form.instruction, names), _match(form.output, names)
    input = next((column for name in form.inputs if (column := _match(name, names)) is not None), None)
    return None if instruction is None else Columns(instruction, output, input)


def _asked(where: str, names: Collection[str], asked: Mapping[str, str], needs_output: bool) -> Columns:
    found: dict[str, str] = {}
    for field in sorted(FIELDS, key=lambda field: field not in asked):
        column = _match(asked.get(field, field), names)
        if column is not None and column not in found.values():
            found[field] = column
        elif field in asked:
            raise UsageError(f"{where} has no column {shown(asked[field])}: --columns can name {_listed(names)}")
        elif field == "instruction" or (field == "output" and needs_output):
            raise UsageError(
                f"{where} has no column {field!r}: add {field}=COLUMN to --columns; it can name {_listed(names)}"
            )
    return Columns(found["instruction"], found.get("output"), found.get("input"))


def _folded(name: str) -> str:
    return name.strip().casefold()


def _match(name: str, names: Collection[str]) -> str | None:
    """The column of this name; if there is none, one whose name differs only in case or in blanks around it."""
    if name in names:
        return name
    return next((each for each in names if _folded(each) == _folded(name)), None)


def _listed(names: Collection[str]) -> str:
    """The first names, for an error message."""
    return ", ".join([shown(name, 40) for name in names][:NAMED] + ["..."] * (len(names) > NAMED))


def _advice(names: Collection[str], needed: Collection[str]) -> str:
    """The `--columns` to try. Names that a shell could misunderstand are not repeated in a command."""
    free = [name for name in names if _folded(name) not in (*_NUMBERING, *FIELDS)]
    missing = [field for field in needed if _match(field, names) is None]
    if len(free) < len(missing):
        return f"give each record an {' and an '.join(needed)}"
    columns = [name if _SAFE.fullmatch(name) and len(name) <= 40 else "COLUMN" for name in free]
    text = ",".join(f"{field}={column}" for field, column in zip(missing, columns, strict=False))
    return f"name them, as in --columns {text}" if " " not in text else f'name them, as in --columns "{text}"'
