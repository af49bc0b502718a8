"""Records of plain text, and what a file of records holds."""

import json
from pathlib import Path

import pytest

from gpt2cli.data.text_records import is_plain_text, read_text_records
from gpt2cli.errors import DataError, UsageError
from tests.data.records import RECORDS, write_json


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ('{"text": "a"}', "text"),
        ('{"id": 1}\n{"text": "a"}', "text"),
        ('{"text": "a"}\n{"question": "b", "answer": "c"}', "records"),
        ('{"text": "a"}\n{"messages": []}', "conversations"),
        ('{"question": "b"}', "records"),
        # the error is that of reading records
        ('{"b": "c"}', "records"),
        ("[]", "records"),
        ("\xff", "records"),
    ],
)
def test_the_names_of_all_records_decide(tmp_path: Path, content: str, kind: str) -> None:
    (tmp_path / "a.jsonl").write_text(content, encoding="latin-1")
    assert is_plain_text(tmp_path / "a.jsonl") == (kind == "text")


def test_a_wrong_document_is_named_or_counted(tmp_path: Path) -> None:
    values = [{"text": "a"}, {"text": None}, {"id": 3}, "x"]
    path = tmp_path / "a.jsonl"
    for wrong, told in zip(
        values[1:], ("null as 'text', not a text", "no 'text'", "a text, not an object"), strict=True
    ):
        path.write_text(f'{{"text": "a"}}\n{json.dumps(wrong)}\n')
        with pytest.raises(DataError, match=rf"record 2 \(line 2\) (has|is) {told}: mend it, or use --skip-bad"):
            read_text_records(path)
    found = read_text_records(write_json(tmp_path / "a.json", values), skip_bad=True)
    assert (found.texts, found.bad) == (["a"], 3)
    assert found.notes == ("1 document of plain text", "skipped 3 malformed records")


def test_columns_name_the_texts(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", [{"inhalt": "a", "text": "b"}])
    assert read_text_records(path).texts == ["b"]
    found = read_text_records(path, columns={"text": "inhalt"})
    assert (found.texts, found.notes) == (["a"], ("1 document of plain text; takes inhalt as text",))
    with pytest.raises(UsageError, match="has no column 'x': --columns can name 'inhalt', 'text'"):
        is_plain_text(path, {"text": "x"})


def test_what_is_no_plain_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no text to learn from"):
        read_text_records(write_json(tmp_path / "a.json", [{"text": " "}]))
    with pytest.raises(UsageError, match="holds records, not plain text"):
        read_text_records(write_json(tmp_path / "a.json", RECORDS))
