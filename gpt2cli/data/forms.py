"""The formats of files of records, and the columns to take from a file.

A file has one format, which the names of all its columns decide. If it has the columns of several, the first of these
is taken:

    preferences    chosen, rejected, and an instruction, a prompt or a question; or `chosen` holds messages
    conversations  messages (OpenAI), conversations (ShareGPT)
    records        the first of FORMS whose instruction and output it has
    plain text     text

Names may be in upper or lower case. A column of the format may hold messages where a text is usual: so `prompt` and
`completion` can hold the two parts of a conversation. A system text is an optional column of all but plain text.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

from gpt2cli.data.columns import (
    ALPACA_COLUMNS,
    FIELDS,
    NUMBERING,
    OWN_NAMES,
    Columns,
    Names,
    first_match,
    folded,
    listed,
    match,
)
from gpt2cli.errors import DataError, UsageError
from gpt2cli.untrusted import shown


class Form(NamedTuple):
    """The columns of a common form. The input is in the first of `inputs` that a file has; it may have none."""

    instruction: str
    output: str
    inputs: tuple[str, ...] = ("input", "context")


FORMS = (
    Form("instruction", "output", ("input",)),  # Alpaca
    Form("instruction", "response"),  # Dolly
    Form("question", "answer"),
    Form("question", "response"),  # OpenOrca
    Form("query", "response"),  # MetaMath
    Form("prompt", "completion"),  # OpenAI
    Form("prompt", "response"),
    Form("input", "output", ("context",)),
)
"""The pairs that are recognized, the most likely one first."""
PREFERRED, REJECTED = "chosen", "rejected"
PREFERENCES = tuple(Form(name, PREFERRED) for name in ("instruction", "prompt", "question"))
"""The forms of files in which each record also has a rejected answer."""
TEXT = "text"
KNOWN = ", ".join(
    (
        "messages",
        "conversations",
        *(f"{form.instruction}/{form.output}" for form in FORMS),
        f"prompt/{PREFERRED}/{REJECTED}",
        TEXT,
    )
)
"""The formats in words, for an error message."""
LIKELY = frozenset(
    {
        *(name for names in OWN_NAMES.values() for name in names),
        *(name for form in (*FORMS, *PREFERENCES) for name in (form.instruction, form.output, *form.inputs)),
        REJECTED,
        TEXT,
    }
)
"""The names of all these columns, in lower case."""
_RECORD = FIELDS[:3]
_SAFE = re.compile(r"[\w.-]+( [\w.-]+)*")


def find_columns(where: str, found: Names, asked: Mapping[str, str] | None, needs_output: bool = True) -> Columns:
    """The columns to take from a file with columns of these names. `where` names the file in errors.

    asked         the columns that the user named; every other field has the same name as its column
    needs_output  whether a file without a column of outputs is refused

    Raises UsageError if the file lacks one that was asked for, and DataError if it has no known format.
    """
    if asked and asked.keys() != {"system"}:
        columns = _asked(where, found, asked, needs_output)
    else:
        columns = _known(where, found, needs_output)
    system = asked["system"] if asked and "system" in asked else None
    columns = replace(columns, system=_system(where, found, columns, system))
    # the two parts of a conversation
    if columns.output in found.lists:
        return Columns(columns.instruction, messages=columns.output, system=columns.system)
    if columns.output is None and columns.instruction in found.lists:
        return Columns(messages=columns.instruction, system=columns.system)
    return columns


def has_answers(found: Names) -> bool:
    """Whether records with columns of these names have answers. Then a file of them is no plain text."""
    if _preferences(found.names, found.lists) or first_match(OWN_NAMES["messages"], found.lists) is not None:
        return True
    return any(columns.output is not None for form in FORMS if (columns := _in_form(form, found.names)))


def _known(where: str, found: Names, needs_output: bool) -> Columns:
    """The columns of the first format that the file has."""
    names = found.names
    if columns := _preferences(names, found.lists):
        return columns
    if (messages := first_match(OWN_NAMES["messages"], found.lists)) is not None:
        return Columns(messages=messages)
    if {"instruction", "output"} <= {*names}:
        return ALPACA_COLUMNS
    taken = [columns for form in FORMS if (columns := _in_form(form, names))]
    complete = [columns for columns in taken if columns.output is not None]
    if complete:
        return complete[0]
    if (text := match(TEXT, names)) is not None:
        return Columns(text=text)
    if taken and not needs_output:
        return taken[0]
    if {*names} <= {*_RECORD}:  # the error about the first record says more
        return ALPACA_COLUMNS
    if (messages := first_match(OWN_NAMES["messages"], names)) is not None:
        if found.is_table:
            raise DataError(_no_lists(where, messages))
        return Columns(messages=messages)
    if match(PREFERRED, names) is not None and match(REJECTED, names) is not None:
        raise DataError(
            f"{where} has {PREFERRED!r} and {REJECTED!r}, but no prompt: add one to each record, or name it, as in "
            f"--columns instruction=COLUMN,output={PREFERRED}"
        )
    columns_are = "column" if len(names) == 1 else "columns"
    raise DataError(
        f"{where} has the {columns_are} {listed(names)}, and none of the known formats ({KNOWN}): "
        f"{_advice(found, needs_output)}"
    )


def _preferences(names: Collection[str], lists: Collection[str]) -> Columns | None:
    """The columns of a file of preferences; None for any other."""
    chosen = match(PREFERRED, names)
    if chosen is None or match(REJECTED, names) is None:
        return None
    for form in PREFERENCES:
        if columns := _in_form(form, names):
            return columns
    return Columns(messages=chosen) if chosen in lists else None


def _in_form(form: Form, names: Collection[str]) -> Columns | None:
    """The columns of a form that a file has; None if it lacks the instruction."""
    instruction = match(form.instruction, names)
    if instruction is None:
        return None
    return Columns(instruction, match(form.output, names), first_match(form.inputs, names))


def _asked(where: str, found: Names, asked: Mapping[str, str], needs_output: bool) -> Columns:
    """The columns that the user named, without the one of system texts."""
    for field in ("text", "messages"):
        if field in asked:
            named = _column(where, found.names, asked[field])
            if field == "messages" and found.is_table:
                raise UsageError(_no_lists(where, named))
            return Columns(**{field: named})
    taken: dict[str, str] = {}
    for field in sorted(_RECORD, key=lambda field: field not in asked):
        column = match(asked.get(field, field), found.names)
        if column is not None and column not in taken.values():
            taken[field] = column
        elif field in asked:
            raise UsageError(_not_there(where, found.names, asked[field]))
        elif field == "instruction" or (field == "output" and needs_output):
            raise UsageError(
                f"{where} has no column {field!r}: add {field}=COLUMN to --columns; it can name {listed(found.names)}"
            )
    return Columns(**taken)


def _system(where: str, found: Names, columns: Columns, asked: str | None) -> str | None:
    """The column of system texts, the one that was asked for or one with a usual name."""
    if asked is not None:
        column = _column(where, found.names, asked)
        if columns.text is not None or column in columns.as_dict().values():
            raise UsageError(_not_there(where, found.names, asked))
        return column
    if columns.text is not None:
        return None
    taken = columns.as_dict().values()
    return first_match(OWN_NAMES["system"], [name for name in found.names if name not in taken])


def _column(where: str, names: Collection[str], asked: str) -> str:
    column = match(asked, names)
    if column is None:
        raise UsageError(_not_there(where, names, asked))
    return column


def _not_there(where: str, names: Collection[str], asked: str) -> str:
    return f"{where} has no column {shown(asked)}: --columns can name {listed(names)}"


def _no_lists(where: str, column: str) -> str:
    return f"{where} names {shown(column)}, but a table cannot hold conversations: give them as .json or .jsonl"


def _advice(found: Names, needs_output: bool) -> str:
    """The `--columns` to try. Names that a shell could misunderstand are not repeated in a command."""
    needed = _RECORD[:2] if needs_output else _RECORD[:1]
    missing = [field for field in needed if match(field, found.names) is None]
    taken = _RECORD if len(missing) < len(needed) else ()  # an input alone can be the instruction
    free = [name for name in found.names if folded(name) not in (*NUMBERING, *taken)]
    if messages := [name for name in free if name in found.lists]:
        free, missing = messages, ["messages"]
    elif len(free) == 1 and len(missing) == 2:
        missing = ["text"]
    if len(free) < len(missing):
        return f"give each record an {' and an '.join(needed)}"
    columns = [name if _SAFE.fullmatch(name) and len(name) <= 40 else "COLUMN" for name in free]
    text = ",".join(f"{field}={column}" for field, column in zip(missing, columns, strict=False))
    return f"name them, as in --columns {text}" if " " not in text else f'name them, as in --columns "{text}"'
