"""A few records in Alpaca's form, for the tests of everything that reads them."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gpt2cli.data.dataset import TokenDataset, from_masked
from gpt2cli.data.records import Record, Records
from gpt2cli.data.turns import template_for
from gpt2cli.exchanges import Exchange, prompt_ids
from gpt2cli.prompts import ALPACA, PromptTemplate
from gpt2cli.tokenizer import END_OF_TEXT_ID, encode_plain

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


def parts_of(record: Record, template: PromptTemplate) -> list[tuple[list[int], list[int]]]:
    """The tokens before each answer of a conversation, as chat sends them, and those of the answer."""
    own = template_for(record, template)
    return [
        (prompt_ids(own, record.exchanges[:k], each), [*encode_plain(each.output), END_OF_TEXT_ID])
        for k, each in enumerate(record.exchanges)
    ]


def dataset_of(records: Sequence[Record]) -> TokenDataset:
    """The tokens of these records as chat sends them, of which each answer with its end is learned."""
    sequences, masks = [], []
    for record in records:
        parts = parts_of(record, ALPACA)
        whole = [token for part in parts[-1] for token in part]
        is_target = torch.zeros(len(whole), dtype=torch.bool)
        for before, answer in parts:
            is_target[len(before) : len(before) + len(answer)] = True
        sequences.append(torch.tensor(whole, dtype=torch.uint16))
        masks.append(is_target)
    return from_masked(sequences, masks)


def as_read(*records: Record) -> Records:
    """The records as those of a file without others."""
    return Records([*records], bad=0, form="records", with_other_columns=0, other_columns=())


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
