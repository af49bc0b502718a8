"""A few records in Alpaca's form, for the tests of everything that reads them."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2cli.data.records import Record, Records
from gpt2cli.exchanges import Exchange

RECORDS = [
    {"instruction": "Name a fruit.", "input": "", "output": "A pear."},
    {"instruction": "Say {input} backwards.", "input": "stressed {instruction}", "output": "desserts {}"},
    {"instruction": "Greet in Greek.", "output": "Γειά σου 👋"},
    {"instruction": "What ends a text for GPT-2?", "input": "", "output": "The sign <|endoftext|> does."},
    {"instruction": "Count to three.", "input": "one a line", "output": "1\n2\n3\n"},
    {"instruction": "[bold]Shout[/bold] \x1b[31m", "input": " \n", "output": "\tHEY [/x]\x1b]52;c;x\x07"},
]


def many(count: int) -> list[dict[str, str]]:
    """Records that all differ."""
    return [{"instruction": f"What is {i} + 1?", "input": "", "output": f"{i + 1} it is."} for i in range(count)]


def conversation(*texts: str, system: str = "") -> Record:
    """A conversation of questions and answers in turn."""
    *earlier, last = (Exchange(asked, output=answer) for asked, answer in zip(texts[::2], texts[1::2], strict=True))
    return Record(last.instruction, "", last.output, tuple(earlier), system)


def as_read(*records: Record) -> Records:
    """The records as those of a file without others."""
    return Records([*records], bad=0, form="", with_other_columns=0, other_columns=())


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def write_table(path: Path, records: Sequence[Mapping[str, str]], separator: str = ",", start: str = "") -> Path:
    """Write the records as `csv.writer` does. The columns are those of all records; a missing value is empty."""
    names = list(dict.fromkeys(name for record in records for name in record))
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(start)
        writer = csv.DictWriter(file, names, delimiter=separator)
        writer.writeheader()
        writer.writerows(records)
    return path
