"""Each format in each container ends in the same records, and in the same tokens and targets."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from gpt2cli.config import DataConfig, TrainConfig
from gpt2cli.data.columns import parse_columns
from gpt2cli.data.dataset import TokenDataset, from_masked
from gpt2cli.data.open_data import load_data
from gpt2cli.data.records import Record, Records, read_records
from gpt2cli.data.text_records import is_plain_text, read_text_records
from gpt2cli.errors import DataError
from gpt2cli.exchanges import Exchange
from gpt2cli.tokenizer import END_OF_TEXT_ID, encode_plain
from tests.data.records import dataset_of

PAIRS = [
    ("Name a fruit.", "A pear."),
    ('Say "hi",\nin Greek; now.', "Γειά\tσου 👋 | 'so'"),
    ("What ends a text for GPT-2?", "The sign <|endoftext|> does."),
]
SINGLE = [Record(question, "", answer) for question, answer in PAIRS]
SYSTEM = "Be brief."
LONG = [
    Record("Why?", "", "So.", tuple(Exchange(question, "", answer) for question, answer in PAIRS), SYSTEM),
    Record("Why?", "", "So.", (), SYSTEM),
]
"""Conversations of four exchanges and of one."""


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def openai(record: Record) -> list[dict[str, str]]:
    system = [{"role": "system", "content": record.system}] if record.system else []
    turns = [message for each in record.exchanges for message in (user(each.instruction), assistant(each.output))]
    return system + turns


def share_gpt(record: Record) -> list[dict[str, str]]:
    names = {"user": "human", "assistant": "gpt"}
    return [
        {"from": names.get(message["role"], message["role"]), "value": message["content"]} for message in openai(record)
    ]


class Format(NamedTuple):
    """The object for a record, what `Records.form` says, and the --columns that the format needs."""

    value: Callable[[Record], dict[str, Any]]
    form: str
    columns: str | None = None


SINGLES = {
    "Alpaca": Format(lambda r: {"instruction": r.instruction, "input": "", "output": r.output}, "Alpaca's records"),
    "Dolly": Format(lambda r: {"instruction": r.instruction, "response": r.output}, "instruction/response records"),
    "questions": Format(lambda r: {"id": 3, "question": r.instruction, "answer": r.output}, "question/answer records"),
    "completions": Format(lambda r: {"prompt": r.instruction, "completion": r.output}, "prompt/completion records"),
    "preferences": Format(
        lambda r: {"prompt": r.instruction, "chosen": r.output, "rejected": "No."},
        "preferences, of which the chosen answers are learned",
    ),
    "the book's preferences": Format(
        lambda r: {"instruction": r.instruction, "input": "", "output": "?", "chosen": r.output, "rejected": "No."},
        "preferences, of which the chosen answers are learned",
    ),
    "other names": Format(
        lambda r: {"frage": r.instruction, "antwort": r.output},
        "frage/antwort records",
        "instruction=frage,output=antwort",
    ),
}
CONVERSATIONS = {
    "OpenAI": Format(lambda r: {"messages": openai(r)}, "OpenAI's messages"),
    "OpenAI in parts": Format(
        lambda r: {"messages": [m | {"content": [{"type": "text", "text": m["content"]}]} for m in openai(r)]},
        "OpenAI's messages",
    ),
    "ShareGPT": Format(lambda r: {"id": "x", "conversations": share_gpt(r)}, "ShareGPT's conversations"),
    "OpenAI's under ShareGPT's key": Format(lambda r: {"conversations": openai(r)}, "OpenAI's messages"),
    "a system text beside": Format(
        lambda r: {"system": r.system, "conversations": [m for m in share_gpt(r) if m["from"] != "system"]},
        "ShareGPT's conversations",
    ),
    "prompt and completion": Format(
        lambda r: {"prompt": openai(r)[:-1], "completion": openai(r)[-1:]}, "OpenAI's messages"
    ),
    "preferred answers": Format(
        lambda r: {"prompt": openai(r)[:-1], "chosen": openai(r)[-1:], "rejected": [assistant("No.")]},
        "OpenAI's messages",
    ),
    "preferred conversations": Format(
        lambda r: {"chosen": openai(r), "rejected": [user("Why?"), assistant("No.")]}, "OpenAI's messages"
    ),
    "other names": Format(lambda r: {"dialog": openai(r)}, "OpenAI's messages", "messages=dialog"),
}


def as_list(values: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(values, ensure_ascii=False)


def in_object(values: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps({"version": 1, "none": [], "data": values}, indent=2)


def as_lines(values: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def separated_by(separator: str) -> Callable[[Sequence[Mapping[str, Any]]], str]:
    def write(values: Sequence[Mapping[str, Any]]) -> str:
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, [*values[0]], delimiter=separator)
        writer.writeheader()
        writer.writerows(values)
        return file.getvalue()

    return write


JSON = {"a.json": as_list, "object.json": in_object, "a.jsonl": as_lines}
TABLES = {"a.csv": separated_by(","), "semicolons.csv": separated_by(";"), "a.tsv": separated_by("\t")}
PACKED = ["", ".gz"]


def write(path: Path, text: str) -> Path:
    content = text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def asked(columns: str | None) -> dict[str, str] | None:
    return None if columns is None else parse_columns(columns)


def read(path: Path, columns: str | None) -> Records:
    assert not is_plain_text(path, asked(columns))
    return read_records(path, columns=asked(columns))


def load(path: Path, columns: str | None) -> TokenDataset:
    """The tokens and targets of all of a file's records, in its order."""
    splits = load_data(path, TrainConfig(), DataConfig(0, 0), 1024, columns=asked(columns))
    assert splits.info["fingerprint"] and not len(splits.val) and not len(splits.test)
    return splits.train


def check_same(found: TokenDataset, expected: TokenDataset) -> None:
    assert found.fingerprint() == expected.fingerprint()
    assert torch.equal(found.is_target, expected.is_target)


# conversations have no form as a table, whose fields are single texts
CASES = [
    *(
        pytest.param(form, SINGLE, container, id=f"{name} in {container}")
        for name, form in SINGLES.items()
        for container in (*JSON, *TABLES)
    ),
    *(
        pytest.param(form, LONG, container, id=f"{name} in {container}")
        for name, form in CONVERSATIONS.items()
        for container in JSON
    ),
]


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize(("form", "records", "container"), CASES)
def test_each_format_in_each_container_gives_the_same(
    tmp_path: Path, form: Format, records: list[Record], container: str, packed: str
) -> None:
    text = (JSON | TABLES)[container]([form.value(record) for record in records])
    path = write(tmp_path / (container + packed), text)
    found = read(path, form.columns)
    assert found.good == records
    assert found.form == form.form
    told = " ".join(found.notes)
    assert ("the records are in its list 'data'" in told) == (container == "object.json")
    assert ("separate the columns" in told) == (container in TABLES)
    if form in CONVERSATIONS.values():
        assert found.columns.kind == "conversations"
        assert told.startswith(f"2 conversations, 5 turns, {form.form}")
        assert sum(bool(record.system) for record in found.good) == 2
    check_same(load(path, form.columns), dataset_of(records))


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("container", [*JSON, *TABLES])
@pytest.mark.parametrize(("key", "columns"), [("text", None), ("Text", None), ("inhalt", "text=inhalt")])
def test_plain_text_in_each_container(
    tmp_path: Path, key: str, columns: str | None, container: str, packed: str
) -> None:
    texts = ["One document,\r\nof two lines.", "Another; 'with'\t\"quotes\" | <|endoftext|>", " \n"]
    text = (JSON | TABLES)[container]([{key: text, "source": "web"} for text in texts])
    path = write(tmp_path / (container + packed), text)
    assert is_plain_text(path, asked(columns))
    found = read_text_records(path, columns=asked(columns))
    assert found.texts == [texts[0].replace("\r\n", "\n"), texts[1]] and found.bad == 0
    assert found.notes[0].startswith("2 documents of plain text")
    assert found.notes[1] == "1 of 3 documents are blank, and are left out"
    tokens = [END_OF_TEXT_ID]
    for document in found.texts:
        tokens += [*encode_plain(document), END_OF_TEXT_ID]
    is_target = torch.arange(len(tokens)) > 0
    check_same(load(path, columns), from_masked([torch.tensor(tokens, dtype=torch.uint16)], [is_target]))
    with pytest.raises(DataError, match="holds plain text without answers"):
        read_records(path, columns=asked(columns))


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ("text instruction output messages prompt chosen rejected", {"instruction": "instruction", "output": "chosen"}),
        ("text prompt completion conversations messages chosen", {"messages": "messages"}),
        ("text prompt completion conversations system", {"messages": "conversations", "system": "system"}),
        ("text prompt completion instruction output", {"instruction": "instruction", "output": "output"}),
        ("text prompt completion question answer", {"instruction": "question", "output": "answer"}),
        ("text question label", {"text": "text"}),
    ],
)
def test_of_several_formats_the_first_is_taken_wherever_its_names_are(
    tmp_path: Path, names: str, taken: dict[str, str]
) -> None:
    values = dict.fromkeys(names.split(), "a") | {
        name: [user("a"), assistant("b")] for name in ("messages", "conversations") if name in names
    }
    others = {name: value for name, value in values.items() if name not in taken.values()}
    path = write(tmp_path / "a.jsonl", as_lines([others] * 3 + [values]))
    if "text" in taken:
        assert read_text_records(path, skip_bad=True).texts == ["a"]
        return
    found = read_records(path, skip_bad=True)
    assert (len(found.good), found.bad) == (1, 3)
    assert {name: column for name, column in found.columns.as_dict().items() if name != "input"} == taken
