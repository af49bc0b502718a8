"""The files that /save writes: a chat as a text, or as records that `gpt2 finetune --data` reads."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from gpt2cli.cli.describe import shortened
from gpt2cli.errors import UsageError
from gpt2cli.suggestions import did_you_mean

if TYPE_CHECKING:
    from gpt2cli.exchanges import Exchange

FORMATS = ("instructions", "prompt", "messages", "sharegpt")
"""The words that name the formats of records: Alpaca's, pairs, OpenAI's messages, ShareGPT's conversations."""
TEXTS = {"": "text", ".txt": "text", ".md": "text"}
RECORDS = {".json": "records", ".jsonl": "records", ".csv": "records", ".tsv": "records"}
"""What /save writes by suffix."""
TABLES = {".csv": ",", ".tsv": "\t"}
"""The separators of tables, which have no lists of messages."""


def split_format(argument: str) -> tuple[str, str | None]:
    """The file and the format in the argument of /save, which may end in a format."""
    file, _, last = argument.rpartition(" ")
    return (file.strip(), last) if file and last in FORMATS else (argument, None)


def check_format(file: str, format: str | None, is_text: bool) -> None:
    """Raise UsageError if /save cannot write the format to this file, or if a chat that is one text has no records."""
    known, suffix = TEXTS if is_text else TEXTS | RECORDS, PurePath(file).suffix.lower()
    first, _, last = suffix.partition(" ")
    if first in RECORDS and last:
        raise UsageError(
            f"there is no format {shortened(last, 20)}: {did_you_mean(last, [*FORMATS]) or 'use ' + ', '.join(FORMATS)}"
        )
    if suffix not in known:
        suffixes = ", ".join(f"{name} ({what})" for name, what in known.items() if name)
        raise UsageError(f"/save does not write {shortened(suffix, 20)}: choose a name that ends in {suffixes}")
    if format and suffix in TEXTS:
        raise UsageError(f"a text has no format {format}: leave it out" + ("" if is_text else ", or write a .jsonl"))
    if format in ("messages", "sharegpt") and suffix in TABLES:
        raise UsageError(f"a {suffix} file has no {format}: choose a name that ends in .json or .jsonl")


def as_text(exchanges: "Sequence[Exchange]") -> str:
    """What was asked, as quotations, and the answers."""
    return "\n".join("> " + _asked(each).replace("\n", "\n> ") + f"\n\n{each.output}\n" for each in exchanges)


def as_records(exchanges: "Sequence[Exchange]", system: str, suffix: str, format: str = "instructions") -> str:
    """The content of a file of records.

    In the formats messages and sharegpt, the file has one record, the conversation. It has no exchanges without an
    answer, as a prompt has none. Only `instructions` has a member for inputs. In the other formats, an input is a part
    of the instruction, which it follows after an empty line. Raises UsageError if a conversation has no answers.
    """
    if format in ("messages", "sharegpt"):
        return _as_json([_conversation(exchanges, system, format)], suffix)
    if format == "instructions":
        records = [asdict(each) for each in exchanges]
    else:
        records = [{"prompt": _asked(each), "completion": each.output} for each in exchanges]
    if system:
        records = [{"system": system} | record for record in records]
    return _as_table(records, TABLES[suffix]) if suffix in TABLES else _as_json(records, suffix)


def _conversation(exchanges: "Sequence[Exchange]", system: str, format: str) -> dict[str, Any]:
    if format == "messages":
        name, speaker, said, user, model = "messages", "role", "content", "user", "assistant"
    else:
        name, speaker, said, user, model = "conversations", "from", "value", "human", "gpt"
    messages = [{speaker: "system", said: system}] if system else []
    for each in exchanges:
        if each.output:
            messages += [{speaker: user, said: _asked(each)}, {speaker: model, said: each.output}]
    if len(messages) < 2:
        raise UsageError(f"no instruction has an answer: there is nothing to save as {format}")
    return {name: messages}


def _asked(exchange: "Exchange") -> str:
    return "\n\n".join(filter(None, (exchange.instruction, exchange.input)))


def _as_json(records: list[dict[str, Any]], suffix: str) -> str:
    if suffix == ".json":
        return json.dumps(records, indent=2, ensure_ascii=False) + "\n"
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _as_table(records: list[dict[str, Any]], separator: str) -> str:
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, [*records[0]], delimiter=separator, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return table.getvalue()
