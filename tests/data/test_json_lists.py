"""A list in JSON that is read in parts is the list that Python's parser reads."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt2cli.data import json_lists
from gpt2cli.data.json_lists import JSONFile, holds_list, open_object
from gpt2cli.data.json_values import NAN
from gpt2cli.data.records import read_records
from gpt2cli.errors import DataError
from tests.data.records import RECORDS, write_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def read_list(path: Path) -> list[Any]:
    return [value for _, value in JSONFile(path)]


@given(
    st.lists(VALUES, max_size=6),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.integers(1, 40),
    st.sampled_from(["", "\ufeff"]),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_list_is_read_in_parts_of_any_size(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: list[Any],
    indent: int | None,
    ascii: bool,
    part: int,
    start: str,
) -> None:
    monkeypatch.setattr(json_lists, "PART", part)
    path = tmp_path / "a.json"
    text = json.dumps(values, indent=indent, ensure_ascii=ascii)
    path.write_bytes((start + text + "\n").encode("utf-8", "replace"))
    assert holds_list(path.read_bytes())
    assert read_list(path) == json.loads(path.read_text(encoding="utf-8-sig"))
    # and so is a list in an object
    in_object = {"a": {"b": [0]}, "empty": [], "data": values, "é": None}
    (tmp_path / "b.json").write_text(start + json.dumps(in_object, indent=indent, ensure_ascii=ascii), "utf-8")
    if values and not (isinstance(values[0], dict) and {"role", "from"} & values[0].keys()):
        assert [value for _, value in open_object(tmp_path / "b.json")] == values
    # and a part of a list is an error, wherever it ends
    path.write_bytes(path.read_bytes()[: -2 - len(text) // 3])
    with pytest.raises(DataError):
        read_list(path)


@pytest.mark.parametrize("part", [1, 7, 2**20])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[1, 2", r"line 1, column 6 \(Expecting ',' delimiter, after record 2;"),
        ("[1 2]", r"line 1, column 4 \(Expecting ',' delimiter, after record 1;"),
        ('[1,\n{"a": 2},\n]', r"line 3, column 1 \(a comma before the end of the list, after record 2;"),
        ('[1,\n\n {"a" 1}]', r"line 3, column 7 \(Expecting ':' delimiter, in record 2;"),
        ('[{"a": 1,}]', r"line 1, column 10 \(Expecting property name enclosed in double quotes, in record 1;"),
        ('[\n  "a', r"line 2, column 3 \(Unterminated string starting at, in record 1;"),
        ("[tru]", r"line 1, column 2 \(Expecting value, in record 1;"),
        ("[", r"line 1, column 2 \(Expecting value, in record 1;"),
        ("[1]\n[2]", r"line 2, column 1 \(Extra data, after record 1;.* if it holds an object a line, name it .jsonl"),
        ('{"data": [1, 2', r"line 1, column 15 \(Expecting ',' delimiter, after record 2;"),
        ('{"a": 1,\n"data": [{"b" 1}]}', r"line 2, column 15 \(Expecting ':' delimiter, in record 1;"),
        ('{"data": [1], "a" 2}', r"line 1, column 19 \(Expecting ':' delimiter; looks like"),
        ('{"data": [1], }', r"line 1, column 15 \(a comma before the end of the object;"),
        ('{"data": [1], a: 2}', r"line 1, column 15 \(Expecting property name enclosed in double quotes;"),
        ('{"a": 1}\n{"a": 2}', r"line 2, column 1 \(Extra data; .*: if it holds an object a line, name it .jsonl"),
        ("instruction,output", r"line 1, column 1 \(Expecting value;"),
        ("", r"line 1, column 1 \(Expecting value; looks like an empty file"),
    ],
)
def test_an_error_has_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, told: str, part: int
) -> None:
    monkeypatch.setattr(json_lists, "PART", part)
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=rf"a\.json: bad JSON at {told}"):
        read_list(tmp_path / "a.json") if content.startswith("[") else open_object(tmp_path / "a.json")


def test_an_error_is_told_before_the_rest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lists, "PART", 64)
    (tmp_path / "a.json").write_bytes(b'[{"a" 1}, ' + b"1, " * 100 + b"\xff]")  # which is not UTF-8
    with pytest.raises(DataError, match=r"column 7 \(Expecting ':' delimiter, in record 1"):
        read_list(tmp_path / "a.json")


@pytest.mark.parametrize("part", range(1, 12))
def test_numbers_are_whole_wherever_a_part_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    monkeypatch.setattr(json_lists, "PART", part)
    (tmp_path / "a.json").write_text("[0.0, 1e5,-1.25E+10 ,12345,-0]")
    assert read_list(tmp_path / "a.json") == [0.0, 1e5, -1.25e10, 12345, 0]


def test_what_json_does_not_have_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[NaN, 1e999]")
    assert read_list(tmp_path / "a.json") == [NAN, math.inf]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (
            {"train": RECORDS, "test": RECORDS},
            r"an object with several lists \('train', 'test'\): give a file with one",
        ),
        ({f"{i}": RECORDS for i in range(20)}, r"\('0', '1', '2', '3', '4', '5', '6', '7', \.\.\.\)"),
        (RECORDS[0], "holds an object, not a list of records"),
        ({"data": []}, "holds no records"),
        ({"data": {"data": RECORDS}}, "holds an object, not a list of records"),
    ],
)
def test_an_object_without_a_single_list_is_refused(tmp_path: Path, value: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_records(write_json(tmp_path / "a.json", value))


def test_the_only_list_with_values_holds_the_records(tmp_path: Path) -> None:
    found = read_records(write_json(tmp_path / "a.json", {"errors": [], "name": "x", "data": RECORDS}))
    assert len(found.good) == len(RECORDS) and found.notes[0] == "the records are in its list 'data'"
    (tmp_path / "a.json").write_text('{"data": [1], "data": [2]}')
    with pytest.raises(DataError, match="several lists 'data'"):
        read_records(tmp_path / "a.json")


def test_an_object_can_be_one_conversation(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}]
    found = read_records(write_json(tmp_path / "a.json", {"messages": messages, "tools": []}))
    assert found.notes == ("1 conversation, 1 turn, OpenAI's messages",)
