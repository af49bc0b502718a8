"""Packed files: read like unpacked ones, and refused if damaged or far too large."""

import gzip
import json
from pathlib import Path

import pytest

from gpt2cli.data.gzip_files import ending, open_binary
from gpt2cli.data.records import read_records
from gpt2cli.data.utf8 import read_utf8
from gpt2cli.errors import DataError
from tests.data.records import RECORDS, many, write_json


def pack(path: Path) -> Path:
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return packed


def test_endings() -> None:
    names = {"a.csv": ".csv", "a.b.CSV.GZ": ".csv.gz", "a.gz": ".gz", "a": "", ".csv": "", "a.tar.gz": ".tar.gz"}
    assert {name: ending(Path(name)) for name in names} == names


def test_packed_equals_unpacked(tmp_path: Path) -> None:
    whole = write_json(tmp_path / "a.json", many(2000))
    assert read_records(pack(whole)) == read_records(whole)
    lines = tmp_path / "a.jsonl"
    lines.write_text("\ufeff" + "\n".join(json.dumps(record) for record in RECORDS), encoding="utf-8")
    assert read_records(pack(lines)) == read_records(lines)
    lines.write_text(f"{json.dumps(RECORDS[0])}\n{{", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: bad JSON at line 2"):
        read_records(pack(lines))
    lines.write_text(json.dumps(RECORDS))
    with pytest.raises(DataError, match=r"name it \.json\.gz$"):
        read_records(pack(lines))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv"])
def test_damaged_at_any_byte(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(json.dumps(many(4)) if name == "a.json" else "question,answer\na,b\n" * 20)
    packed = pack(tmp_path / name)
    content = packed.read_bytes()
    for i in range(2, len(content)):
        for damaged in (content[:i], content[:i] + bytes([content[i] ^ 255]) + content[i + 1 :]):
            packed.write_bytes(damaged)
            try:
                read_records(packed, skip_bad=True)
            except DataError as error:
                assert str(packed) in str(error) and "\n" not in str(error)
    packed.write_bytes(b"question,answer")
    with pytest.raises(DataError, match=r"is not a gzip file \(looks like text\): remove \.gz from its name"):
        read_records(packed)


@pytest.mark.parametrize(("name", "right"), [("a.csv", "a.csv.gz"), ("a.jsonl", "a.jsonl.gz"), ("a.json", "a.json.gz")])
def test_a_packed_file_without_its_ending_is_told_its_name(tmp_path: Path, name: str, right: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"question,answer\na,b"))
    with pytest.raises(DataError, match=rf"a\.\w+ is packed by gzip: name it {right}$"):
        read_records(tmp_path / name)


def test_a_packed_text_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(gzip.compress(b"Once upon a time."))
    with pytest.raises(DataError, match=r"a\.txt is packed by gzip: unpack it$"):
        read_utf8(tmp_path / "a.txt")


def test_what_unpacks_to_far_more_than_a_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt2cli.data.gzip_files.SMALL", 2**20)
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"question,answer\n" + b"0" * 2**21))
    with pytest.raises(DataError, match="unpacks to more than 1 MB"):
        read_records(path)
    monkeypatch.setattr("gpt2cli.data.gzip_files.SMALL", 2**22)
    with open_binary(path) as file:
        assert len(file.read()) == 2**21 + 16
