"""A few records in Alpaca's form, for the tests of everything that reads them."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
