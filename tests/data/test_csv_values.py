"""Tables: every dialect gives the rows that were written, and a wrong row is named by its line."""

import csv
import io
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2cli.data.csv_values import SEPARATORS, Table, open_table
from gpt2cli.data.forms import LIKELY
from gpt2cli.data.json_values import BadLine
from gpt2cli.data.records import read_records
from gpt2cli.errors import DataError
from tests.data.records import RECORDS, write_table

TEXTS = st.text(
    st.one_of(st.sampled_from("\n\r\",;|\t' "), st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
)


def hostile(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def table(path: Path, content: str | bytes) -> Table:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_table(path, LIKELY)


def test_rows_of_empty_fields_are_no_rows_if_there_are_several_columns(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", "question,answer\na,b\n,,\n,\nc,d\n")
    assert [(line, [*row.values()]) for line, row in found] == [(2, ["a", "b"]), (5, ["c", "d"])]
    assert [row for _, row in table(tmp_path / "b.csv", 'answer\na\n""\n\nb\n')] == [
        *({"answer": text} for text in ("a", "", "b"))
    ]


@given(
    st.lists(st.tuples(TEXTS, TEXTS, TEXTS).filter(any), min_size=1, max_size=8),
    st.sampled_from([*SEPARATORS]),
    # with other line ends than its own, Python's writer needs to be told to quote line ends in texts
    st.sampled_from(
        [("\r\n", csv.QUOTE_MINIMAL), ("\r\n", csv.QUOTE_ALL), ("\n", csv.QUOTE_ALL), ("\r", csv.QUOTE_ALL)]
    ),
    st.sampled_from(["", "\ufeff"]),
)
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    separator: str,
    style: tuple[str, int],
    start: str,
) -> None:
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=separator, lineterminator=style[0], quoting=style[1])
    writer.writerows([("question", "context", "answer"), *rows])
    path = tmp_path_factory.getbasetemp() / "hypothesis.csv"
    path.write_bytes((start + written.getvalue()).encode())
    found = read_records(path).good
    assert [(record.instruction, record.input, record.output) for record in found] == rows


@given(st.one_of(st.binary(), st.text(st.sampled_from("question,answer;\t\n\r\"' =sep\x00\udcff")).map(hostile)))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_records_or_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.csv"
    for start in (b"", b"question,answer\n"):
        path.write_bytes(start + content)
        try:
            found = read_records(path, skip_bad=True)
        except DataError as error:
            assert str(error).isprintable() and len(str(error)) < len(str(path)) + 700
        else:
            assert all(isinstance(record.output, str) for record in found.good)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("question,answer\na,b\n", "commas"),
        ("question;answer\na, c;b\n", "semicolons"),
        ("question\tanswer\na,c;\tb,d;\n", "tabs"),
        ("question|answer\na|b\n", "vertical bars"),
        ("'question','answer'\n'a, it''s','b'\n", "commas"),
        ('question, answer\n"a, c", b\n', "commas"),
        ("sep=;\r\nquestion;answer\r\na,c,d;b\r\n", "semicolons"),
        ("\ufeffsep=|\nquestion|answer\na;c|b\n", "vertical bars"),
        # the header alone has more commas
        ("question;answer, short, clear;topic\na;b;c\nd;e;f\n", "semicolons"),
        ("\n\nquestion,answer\n\na,b\n\n", "commas"),
        ("question,answer,,\na,b,,\n", "commas"),
    ],
)
def test_the_dialect_is_found_and_told(tmp_path: Path, content: str, note: str) -> None:
    found = table(tmp_path / "a.csv", content)
    assert found.note == f"{note} separate the columns"
    [*rows] = found
    assert [len(row) for _, row in rows if isinstance(row, dict)] == [len(found.names)] * len(rows)
    assert not any(
        text.startswith(("'", '"', " ")) for _, row in rows if isinstance(row, dict) for text in row.values()
    )


def test_tabs_are_likely_in_a_tsv(tmp_path: Path) -> None:
    content = "x, y\tz\na, b\tc\n"
    assert table(tmp_path / "a.TSV", content).names == ["x, y", "z"]
    assert table(tmp_path / "a.csv", content).names == ["x", "y\tz"]


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    content = 'question,answer\r\n"a\nb\r\nc\rd",e\r\n\r\n\u2028x\x0b\x0c\x85,f\r\n"g\n",h\r\ni,j,k\r\nl,m'
    found = table(tmp_path / "a.csv", content)
    assert [line for line, _ in found] == [2, 7, 8, 10, 11]
    assert [*found] == [*found]
    with pytest.raises(DataError, match=r"bad CSV at line 10 \(3 fields for 2 columns; texts with commas need quotes"):
        read_records(tmp_path / "a.csv")
    assert read_records(tmp_path / "a.csv", skip_bad=True).bad == 1
    (tmp_path / "a.csv").write_text("sep=,\nquestion,answer\na,b,c\n")
    with pytest.raises(DataError, match="at line 3 "):
        read_records(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (b"a", r"record 2 \(line 4\) has no 'answer'"),
        (b"a,b,c", r"bad CSV at line 4 \(3 fields for 2 columns"),
        (b'"a" b,c', r'bad CSV at line 4 \(text after a closing quote; write "" for a quote in a text\)'),
        (b'"a\nb,"c",d', r'bad CSV at line 4 \(text after a closing quote in line 5; write "" for'),
        (b"\xe4,b", r"bad CSV at line 4 \(not valid UTF-8; save it as UTF-8 \(in Excel: CSV UTF-8\)\)"),
    ],
)
def test_a_wrong_row_is_named_or_counted(tmp_path: Path, row: bytes, told: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'question,answer\n"one\ntwo",b\n' + row + b"\nc,d\n")
    with pytest.raises(DataError, match=told + ".*: mend it, or use --skip-bad$"):
        read_records(path)
    found = read_records(path, skip_bad=True)
    assert (len(found.good), found.bad) == (2, 1)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "looks like an empty file"),
        (b" \n\n", "is not a table"),
        (b"<!DOCTYPE html><p>a,b", "looks like HTML"),
        (b"PK\x03\x04\0\0", "looks like a zip"),
        ("question,answer\na,b".encode("utf-16"), "looks like UTF-16: save it as UTF-8"),
        (b"question,ant\xfcort\na,b", "not valid UTF-8 in its first line"),
        (b"question,answer,answer\na,b,c", "more than one column 'answer': rename one"),
        (b'question,"answer" x\na,b', "bad header"),
        (b"question,answer\n", "holds no records"),
        (b"sep=;\n", "holds no records"),
        (b'question,answer\na,b\nc,"d\ne,f\n', r'the quote " that opens in the record at line 3 is not closed'),
        (b"What is 1 + 1?,2\nWhat is 1 + 2?,3\n", "none of the known formats"),
    ],
)
def test_what_is_no_table(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    for skip_bad in (False, True):
        with pytest.raises(DataError, match=told) as error:
            read_records(tmp_path / "a.csv", skip_bad)
        assert str(tmp_path / "a.csv") in str(error.value) and "\n" not in str(error.value)


def test_long_fields_are_read_and_the_limit_of_others_stays(tmp_path: Path) -> None:
    long = [{"question": "a" * 300_000, "answer": "b"}] * 3
    path, limit = write_table(tmp_path / "a.csv", long), csv.field_size_limit()
    rows = iter(open_table(path))
    assert next(rows)[1] == long[0]
    assert csv.field_size_limit() == limit
    threads = [threading.Thread(target=lambda: [*open_table(path)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert csv.field_size_limit() == limit


def test_a_field_beyond_the_limit_is_a_quote_that_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt2cli.data.csv_values.LONGEST_FIELD", 1000)
    path = write_table(tmp_path / "a.csv", [{"question": "a" * 999, "answer": "b"}, {"question": "a" * 1001}])
    with pytest.raises(DataError, match="line 3 is not closed"):
        read_records(path, skip_bad=True)


def test_empty_fields_are_empty_texts(tmp_path: Path) -> None:
    table(tmp_path / "a.csv", "instruction,input,output\na,,b\nc,,\n")
    assert [record.input for record in read_records(tmp_path / "a.csv").good] == ["", ""]
    assert not any(isinstance(row, BadLine) for _, row in open_table(write_table(tmp_path / "b.csv", RECORDS)))
