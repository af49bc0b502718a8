"""Answers that were made elsewhere: every form of file, and the first answer that does not fit."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.config import DataConfig, TrainConfig
from gpt2cli.errors import DataError, GPT2Error, UsageError
from gpt2cli.evaluation.evaluation_data import Instructions, read_data
from gpt2cli.evaluation.given_answers import FIELDS, Given, read_given
from gpt2cli.tokenizer import encode
from tests.data.records import write_json

RECORDS = [
    {"instruction": "One?", "input": "a", "output": "1"},
    {"instruction": "Silent.", "output": ""},
    {"instruction": "Two?", "output": "2"},
]


@pytest.fixture
def data(tmp_path: Path) -> Instructions:
    found = read_data(write_json(tmp_path / "r.json", RECORDS), "r.json", None, 99, TrainConfig(), DataConfig())
    assert isinstance(found, Instructions) and len(found.tasks) == 2
    return found


def read(tmp_path: Path, value: Any, data: Instructions, name: str = "theirs.json") -> Given:
    return read_given(name, write_json(tmp_path / name, value), data)


def test_texts_in_order_for_all_records_or_for_those_with_an_output(tmp_path: Path, data: Instructions) -> None:
    found = read(tmp_path, [" one word ", "nothing", "two"], data)
    assert found.name == "theirs.json"
    assert [answer.text for answer in found.answers.values()] == ["one word", "two"]
    assert [answer.tokens for answer in found.answers.values()] == [len(encode("one word")), 1]
    assert read(tmp_path, [" one word ", "two"], data) == found


@pytest.mark.parametrize("field", FIELDS)
def test_objects_may_say_what_they_answer(tmp_path: Path, data: Instructions, field: str) -> None:
    said = [{"instruction": "One?\n", "input": "a", field: "eins"}, {field: "zwei"}]
    assert [answer.text for answer in read(tmp_path, said, data).answers.values()] == ["eins", "zwei"]
    lines = tmp_path / "theirs.jsonl"
    lines.write_text("\n\n".join(map(json.dumps, said)))
    assert [answer.text for answer in read_given("t", lines, data).answers.values()] == ["eins", "zwei"]


def test_a_response_counts_beside_the_reference(tmp_path: Path, data: Instructions) -> None:
    said = [record | {"model_response": "mine"} for record in RECORDS]
    assert {answer.text for answer in read(tmp_path, said, data).answers.values()} == {"mine"}


def messages(*texts: str) -> dict[str, Any]:
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]}


def test_answers_to_conversations_are_matched_by_the_last_question(tmp_path: Path) -> None:
    talks = [messages("Hello?", "Hi.", "One?", "1"), messages("Two?", "2")]
    data = read_data(write_json(tmp_path / "r.json", talks), "r.json", None, 99, TrainConfig(), DataConfig())
    assert isinstance(data, Instructions)
    share_gpt = {"conversations": [{"from": "human", "value": "Two?"}, {"from": "gpt", "value": "zwei"}]}
    for said in (
        [messages("Hello?", "Good day.", "One?", "eins"), share_gpt],
        [{"instruction": "One?", "response": "eins"}, {"answer": "zwei"}],
        ["eins", "zwei"],
    ):
        assert [answer.text for answer in read(tmp_path, said, data).answers.values()] == ["eins", "zwei"]
    for odd, told in (
        (messages("Hello?", "Hi."), r"answer 1 has the instruction 'Hello\?', and the record of r.json has 'One\?'"),
        (messages("Hello?", "Hi.", "One?"), "answer 1 ends with a question: give a conversation that ends with an"),
        (messages("Hello?", "", "One?", "eins"), r"answer 1 has an empty message of the assistant \(messages\[1\]\)"),
    ):
        with pytest.raises(DataError, match=told):
            read(tmp_path, [odd, "zwei"], data)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (["one"], r"theirs\.json and r\.json differ in length \(1 answer, 2 records with an output\): give one"),
        ([{"instruction": "One?", "input": "b", "answer": "1"}, "2"], "answer 1 has the input 'b', and the record"),
        ([{"answer": "1"}, {"instruction": "x" * 500, "answer": "2"}], "answer 2 has the instruction 'x{80}...'"),
        ([{"answer": "1"}, {"instruction": 3, "answer": "2"}], "answer 2 has the instruction a number"),
        ([{"said": "1"}, "2"], "answer 1 has none of model_response, response"),
        (["1", 2], "answer 2 is a number, not a text"),
        (["1", {"answer": None}], "answer 2 is null as 'answer', not a text"),
        ({"a": 1}, "holds an object, not a list"),
    ],
)
def test_the_first_that_does_not_fit_is_named(tmp_path: Path, data: Instructions, said: Any, told: str) -> None:
    with pytest.raises(DataError, match=told) as error:
        read(tmp_path, said, data)
    assert "theirs.json" in str(error.value) and len(str(error.value)) < 400


def test_strange_files(tmp_path: Path, data: Instructions) -> None:
    for name, content, told in (
        ("a.jsonl", b'"1"\n{', "answer 2 .line 2. is bad JSON"),
        ("a.json", b'["\xff"]', "UTF-8"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=told):
            read_given(name, tmp_path / name, data)
    (tmp_path / "half.json").write_text('["1", "\\ud800"]')
    with pytest.raises(DataError, match="answer 2 is half a surrogate pair"):
        read_given("half.json", tmp_path / "half.json", data)
    for name in ("none.json", "a" * 300 + ".json", "a\0.json"):
        with pytest.raises(UsageError, match="is not there"):
            read_given(name, tmp_path / name, data)
    with pytest.raises(
        GPT2Error, match=r"does not hold answers: give --answers-from a \.csv, \.tsv, \.json or \.jsonl"
    ):
        read(tmp_path, ["1", "2"], data, "theirs.txt")
