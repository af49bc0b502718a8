"""Files of records that somebody else wrote, and the ways in which they are wrong."""

import json
from pathlib import Path

import pytest

from gpt2cli.data.records import Record, read_records
from gpt2cli.errors import DataError, UsageError
from tests.data.records import RECORDS, write_json

GOOD = json.dumps(RECORDS[0])


def test_json_and_lines_hold_the_same(tmp_path: Path) -> None:
    whole = write_json(tmp_path / "a.json", RECORDS)
    lines = tmp_path / "a.jsonl"
    lines.write_text("\n\n".join(json.dumps(record) for record in RECORDS) + "\r\n", encoding="utf-8")
    assert read_records(whole) == read_records(lines)
    found = [(record.instruction, record.input, record.output) for record in read_records(whole).good]
    assert found == [(record["instruction"], record.get("input", ""), record["output"]) for record in RECORDS]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_byte_order_mark_is_fine(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(b"\xef\xbb\xbf" + (f"[{GOOD}]" if name == "a.json" else GOOD).encode())
    assert len(read_records(file).good) == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'[{"instruction": "a",\n "output" "b"}]', "bad JSON at line 2, column 11 (Expecting ':' delimiter"),
        (b"<!DOCTYPE html>", "line 1, column 1 (Expecting value; looks like HTML)"),
        (f"{GOOD}\n{GOOD}".encode(), "name it .jsonl"),
        (b"", "looks like an empty file"),
        (b'{"a": 1}', "holds an object, not a list"),
        (b"null", "holds null, not a list"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deep"),
        (b'[{"instruction": NaN, "output": ""}]', "holds no records but 1 bad ones"),
        (b"NaN", "holds NaN, not a list"),
        (b"9" * 5000, "holds a number of more than 640 digits, not a list"),
        (b'["\xff"]', "not valid UTF-8 at byte 2"),
        (b'\xef\xbb\xbf["\xff"]', "not valid UTF-8 at byte 5"),
        (b"[]", "holds no records"),
    ],
)
def test_what_is_no_list_of_records(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_records(file, skip_bad=True)
    assert told in str(error.value)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ('"text"', "is a text, not an object"),
        ("-Infinity", "is -Infinity, not an object"),
        ("9" * 5000, "is a number of more than 640 digits, not an object"),
        ('{"instruction": NaN, "output": "a"}', "has NaN as 'instruction', not a text"),
        ('{"instruction": "a", "output": NaN}', "has NaN as 'output', not a text"),
        ('{"instruction": "a", "output": "b", "input": Infinity}', "has Infinity as 'input', not a text"),
        ('{"instruction": "a", "output": %s}' % ("-" + "9" * 5000), "as 'output', not a text"),
        ('{"instruction": "a"}', "has no 'output'"),
        ('{"output": "a"}', "has no 'instruction'"),
        ('{"instruction": "a", "output": ["b"]}', "has a list as 'output', not a text"),
        ('{"instruction": null, "output": "b"}', "has null as 'instruction'"),
        ('{"instruction": "a", "output": "b", "input": 0}', "has a number as 'input'"),
        ('{"instruction": "a", "output": "\\ud800"}', "has half a surrogate pair in 'output'"),
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_wrong_record_is_named_or_counted(tmp_path: Path, name: str, record: str, told: str) -> None:
    file = tmp_path / name
    file.write_text(f"[{GOOD}, {record}]" if name == "a.json" else f"{GOOD}\n{record}\n", encoding="utf-8")
    with pytest.raises(DataError) as error:
        read_records(file)
    where = "record 2" if name == "a.json" else "record 2 (line 2)"
    assert f"{file}: {where} " in str(error.value) and told in str(error.value)
    assert len(str(error.value)) < len(str(file)) + 150
    skipped = read_records(file, skip_bad=True)
    assert (len(skipped.good), skipped.bad) == (1, 1)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"instruction": }', "line 3, column 17 (Expecting value)"),
        (b'{"instruction": NaN}', "record 2 (line 3) has NaN as 'instruction', not a text"),
        (b"[" * 100_000, "line 3 (nested too deep)"),
        (b'"\xff"', "line 3 (not valid UTF-8 at byte 1 of the line)"),
    ],
)
def test_a_wrong_line_is_named_or_counted(tmp_path: Path, line: bytes, told: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(GOOD.encode() + b"\n\n" + line + b"\n" + GOOD.encode())
    with pytest.raises(DataError) as error:
        read_records(file)
    assert told in str(error.value)
    skipped = read_records(file, skip_bad=True)
    assert (len(skipped.good), skipped.bad) == (2, 1)


@pytest.mark.parametrize("missing", ["null", "NaN", '""'])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_null_and_what_pandas_writes_for_it_are_no_input(tmp_path: Path, name: str, missing: str) -> None:
    record = f'{{"instruction": "a", "input": {missing}, "output": "b", "system": {missing}}}'
    (tmp_path / name).write_text(f"[{record}]" if name == "a.json" else record, encoding="utf-8")
    found = read_records(tmp_path / name)
    assert found.good[0].input == "" and found.notes == ()


def test_endings_count_in_any_case(tmp_path: Path) -> None:
    assert len(read_records(write_json(tmp_path / "A.JSON", RECORDS)).good) == len(RECORDS)
    (tmp_path / "B.JsonL").write_text(GOOD, encoding="utf-8")
    assert len(read_records(tmp_path / "B.JsonL").good) == 1


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize("content", [f"[{GOOD}]", f"\ufeff[\n  {GOOD},\n  {GOOD}\n]\n", "[]"])
def test_a_list_in_a_file_of_lines_is_told_by_its_form(tmp_path: Path, content: str, skip_bad: bool) -> None:
    (tmp_path / "a.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl holds one list, not an object a line: name it \.json$"):
        read_records(tmp_path / "a.jsonl", skip_bad)


def test_a_bad_first_line_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f'["a"]\n{GOOD}\n', encoding="utf-8")
    assert read_records(tmp_path / "a.jsonl", skip_bad=True).bad == 1


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_other_names_are_found_in_all_records(tmp_path: Path, name: str) -> None:
    good, bad = {"Question": "a", "id": 7, "answer": "b"}, {"Question": "a", "answer": 7}
    values = [{"id": 6}, "text", good, bad]
    text = json.dumps(values) if name == "a.json" else "\n".join(map(json.dumps, values))
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = read_records(tmp_path / name, skip_bad=True)
    assert (found.good, found.bad) == ([Record("a", "", "b")], 3)
    assert found.notes[0] == "takes Question as instruction, answer as output"
    with pytest.raises(DataError, match=r"record 1 .*has no 'Question'"):
        read_records(tmp_path / name)
    asked = {"instruction": "Question", "output": "x"}
    with pytest.raises(UsageError, match="has no column 'x': --columns can name 'id', 'Question', 'answer'"):
        read_records(tmp_path / name, skip_bad=True, columns=asked)
    asked["output"] = "answer"
    with pytest.raises(DataError, match=r"record 4 .*has a number as 'answer', not a text"):
        read_records(write_json(tmp_path / "b.json", [good] * 3 + [bad]), columns=asked)


def test_fields_that_are_not_used_are_counted(tmp_path: Path) -> None:
    good = RECORDS[0]
    odd = [good | {"history": [["q", "a"]], "topic": ""}, good | {"topic": "Fruit"}, good | {"x" * 500: 1}]
    found = read_records(write_json(tmp_path / "a.json", [good, *odd, good | {"topic": None}]))
    assert len(found.good) == 5
    [note] = found.notes
    assert note.startswith("3 of 5 records have other fields, which are not used (such as 'history', 'topic', 'xxx")
    assert len(note) < 150


@pytest.mark.parametrize(
    "content", ['[{"question": "Who?", "context": "x"}, {"question": "Why?"}]', "question,context\nWho?,x\nWhy?,\n"]
)
def test_a_file_without_outputs_is_read_where_they_are_optional(tmp_path: Path, content: str) -> None:
    file = tmp_path / ("a.json" if content.startswith("[") else "a.csv")
    file.write_text(content)
    with pytest.raises(DataError, match="none of the known formats"):
        read_records(file)
    for output in ("optional", "unused"):
        assert read_records(file, output=output).good == [Record("Who?", "x", ""), Record("Why?", "", "")]
    file.write_text(content.replace("question", "frage"))
    with pytest.raises(DataError, match=r"name them, as in --columns instruction=frage"):
        read_records(file, output="optional")
    found = read_records(file, columns={"instruction": "frage"}, output="optional")
    assert [record.instruction for record in found.good] == ["Who?", "Why?"]


def test_outputs_that_are_not_used_need_not_be_texts(tmp_path: Path) -> None:
    file = write_json(tmp_path / "a.json", [{"instruction": "Who?", "output": 3}, {"instruction": "Why?"}])
    with pytest.raises(DataError, match="record 1 has a number as 'output'"):
        read_records(file, output="optional")
    assert read_records(file, output="unused").good == [Record("Who?", "", ""), Record("Why?", "", "")]
    assert read_records(file, output="unused").notes == ()


def test_texts_keep_their_characters(tmp_path: Path) -> None:
    record = {"instruction": "a\r\nb", "input": "\ufeffc", "output": "d\r\n<|endoftext|>\n"}
    [found] = read_records(write_json(tmp_path / "a.json", [record])).good
    assert (found.instruction, found.input, found.output) == tuple(record.values())


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.json"):
        read_records(write_json(tmp_path / "a.xml", RECORDS))


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n\r", "\r\r\n"], ids=repr)
def test_lines_may_end_as_on_any_machine(tmp_path: Path, end: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(end.join(json.dumps(record) for record in RECORDS).encode())
    assert len(read_records(file).good) == len(RECORDS)
    file.write_bytes(f"{GOOD}{end}{{".encode())
    with pytest.raises(DataError, match=r"bad JSON at line [23], column 2"):
        read_records(file)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_records_in_utf16_are_refused_as_a_whole(tmp_path: Path, name: str, encoding: str) -> None:
    file = tmp_path / name
    file.write_bytes((f"[{GOOD}]" if name == "a.json" else GOOD).encode(encoding))
    with pytest.raises(DataError, match=r"UTF-16|byte 0"):
        read_records(file, skip_bad=True)
