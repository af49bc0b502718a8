"""Every accepted kind of data, and the messages for all others."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from gpt2cli.config import LESSONS, DataConfig, TrainConfig
from gpt2cli.data.kinds import data_path
from gpt2cli.data.open_data import load_data
from gpt2cli.data.prepared import fingerprint, write_prepared
from gpt2cli.data.splits import Splits
from gpt2cli.errors import DataError, UsageError
from gpt2cli.prompts import ALPACA
from tests.data.records import RECORDS, many, write_json, write_table


def load(path: Path, train: TrainConfig | None = None, data: DataConfig | None = None, block_size: int = 64) -> Splits:
    return load_data(path, train or TrainConfig(), data or DataConfig(), block_size)


def test_every_kind(tmp_path: Path) -> None:
    records = write_json(tmp_path / "a.json", many(40))
    found = load(records)
    assert (found.template, found.info["kind"], found.info["max_length"]) == (ALPACA, "alpaca", 64)
    assert [len(part) for part in found.by_name().values()] == [34, 4, 2]
    everyone = [tuple(ids.tolist()) for part in found.by_name().values() for ids, _ in part]
    assert len(set(everyone)) == len(everyone) == found.info["counts"]["kept"] == 40
    write_prepared(found, tmp_path / "prepared")
    assert fingerprint(load(tmp_path / "prepared")) == fingerprint(found) == load(records).info["fingerprint"]
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("Once upon a time. " * 50, encoding="utf-8")
    one, all_of_them = load(folder / "a.txt"), load(folder)
    assert (one.template, one.info["kind"], one.info["loss_on"]) == (None, "text", "all")
    assert one.info["fingerprint"] == all_of_them.info["fingerprint"]
    assert int(one.train.lengths.max()) == 65
    shorter = load(folder, TrainConfig(max_length=16))
    assert int(shorter.train.lengths.max()) == 17


def test_one_dataset_in_every_format_and_under_any_names(tmp_path: Path) -> None:
    records = [{"input": "", **record} for record in (*RECORDS, *many(30))]
    renamed = [{"q": each["instruction"], "in": each["input"], "a": each["output"], "id": "7"} for each in records]
    known = [{"Question": each["instruction"], "context": each["input"], "ANSWER": each["output"]} for each in records]
    asked = {"instruction": "q", "output": "a", "input": "in"}
    expected = load(write_json(tmp_path / "a.json", records), block_size=256)
    for name, rows, columns in (("a", records, None), ("b", renamed, asked), ("c", known, None)):
        files = [write_json(tmp_path / f"{name}.json", rows), tmp_path / f"{name}.jsonl"]
        files[1].write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        files += [
            write_table(tmp_path / f"{name}{i}{ending}", rows, separator, start)
            for ending, separator, start in ((".csv", ",", ""), (".tsv", "\t", ""), (".csv", ";", "\ufeff"))
            for i in (ord(separator),)
        ]
        for file in list(files):
            packed = file.with_name(file.name + ".gz")
            packed.write_bytes(gzip.compress(file.read_bytes()))
            files.append(packed)
        for file in files:
            found = load_data(file, TrainConfig(), DataConfig(), 256, columns=columns)
            assert fingerprint(found) == fingerprint(expected) == found.info["fingerprint"], file.name
            assert found.info["counts"] == expected.info["counts"]
            assert found.info["columns"]["instruction"] in rows[0]
    write_prepared(found, tmp_path / "prepared")
    assert load(tmp_path / "prepared", block_size=256).info["columns"] == found.info["columns"]


def test_texts_in_records_are_documents_in_every_container(tmp_path: Path) -> None:
    texts = [f"Tale {i}.\r\nIt <|endoftext|> goes on." * (i % 3 + 1) for i in range(20)]
    (tmp_path / "files").mkdir()
    for i, text in enumerate(texts):  # whole documents are divided as whole files are
        (tmp_path / "files" / f"{i:02}.txt").write_bytes(text.encode())
    expected = load(tmp_path / "files")
    rows = [{"text": text, "id": str(i)} for i, text in enumerate(texts)]
    files = [write_json(tmp_path / "a.json", rows), tmp_path / "a.jsonl"]
    files[1].write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    files += [write_table(tmp_path / f"a{end}", rows, by) for end, by in ((".csv", ","), (".tsv", "\t"))]
    renamed = write_json(tmp_path / "named.json", [{"body": row["text"]} for row in rows])
    for file in list(files):
        packed = file.with_name(file.name + ".gz")
        packed.write_bytes(gzip.compress(file.read_bytes()))
        files.append(packed)
    for file, columns in ((renamed, {"text": "body"}), *((file, None) for file in files)):
        found = load_data(file, TrainConfig(), DataConfig(), 64, columns=columns)
        assert found.info["fingerprint"] == expected.info["fingerprint"], file.name
        assert (found.template, found.info["kind"], found.info["documents"]) == (None, "text", 20)
        assert found.notes[0].startswith("20 documents of plain text")
        assert found.notes[1].startswith("holds out 2 of 20 documents for validation, with ")
    assert [len(part) for part in load(files[0], data=DataConfig(0, 0, subset=3)).by_name().values()] == [3, 0, 0]


def test_the_only_document_of_a_file_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Once upon a time. " * 50, encoding="utf-8")
    one = write_json(tmp_path / "a.json", [{"text": "Once upon a time. " * 50}, {"text": " \n"}])
    found = load(one)
    assert found.info["fingerprint"] == load(tmp_path / "a.txt").info["fingerprint"]
    assert found.notes[1:] == ("1 of 2 documents are blank, and are left out",)
    bad = write_json(tmp_path / "bad.json", [{"text": "Once."}, {"text": 1}])
    with pytest.raises(DataError, match=r"record 2 has a number as 'text', not a text: mend it, or use --skip-bad"):
        load(bad)
    assert load_data(bad, TrainConfig(), DataConfig(), 64, skip_bad=True).notes[1:] == ("skipped 1 malformed record",)


@pytest.mark.parametrize("name", ["a.txt", "prepared", "texts"])
def test_columns_are_for_files_of_records(tmp_path: Path, name: str) -> None:
    write_prepared(load(write_json(tmp_path / "a.json", many(40))), tmp_path / "prepared")
    (tmp_path / "texts").mkdir()
    for path in (tmp_path / "a.txt", tmp_path / "texts" / "a.txt"):
        path.write_text("Once upon a time. " * 50, encoding="utf-8")
    with pytest.raises(UsageError, match=r"--columns is for files of records, and .*: leave it out"):
        load_data(tmp_path / name, TrainConfig(), DataConfig(), 64, columns={"instruction": "a", "output": "b"})


def test_the_seed_decides(tmp_path: Path) -> None:
    records = write_json(tmp_path / "a.json", many(40))
    assert fingerprint(load(records)) != fingerprint(load(records, data=DataConfig(seed=1)))


def test_a_subset_of_what_is_prepared(tmp_path: Path) -> None:
    write_prepared(load(write_json(tmp_path / "a.json", many(40))), tmp_path / "prepared")
    found = load(tmp_path / "prepared", data=DataConfig(subset=5))
    assert [len(part) for part in found.by_name().values()] == [5, 4, 2]
    assert found.info["fingerprint"] == fingerprint(found)


def test_a_window_that_is_too_small(tmp_path: Path) -> None:
    found = load(write_json(tmp_path / "a.json", many(40)))
    write_prepared(found, tmp_path / "prepared")
    longest = max(int(part.lengths.max()) for part in found.by_name().values())
    load(tmp_path / "prepared", block_size=longest - 1)
    for train, window in ((TrainConfig(), longest - 2), (TrainConfig(max_length=longest - 2), 64)):
        with pytest.raises(DataError, match=f"--max-length {longest - 2}"):
            load(tmp_path / "prepared", train, block_size=window)
    with pytest.raises(UsageError, match="window of 64"):
        load(tmp_path / "a.json", TrainConfig(max_length=65))


def test_what_is_not_accepted(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_text("a,b", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    names = ("a" * 300, "a\0b", "a\nb")
    for path, kind in (("a.xlsx", UsageError), ("folder", DataError), *((name, UsageError) for name in names)):
        with pytest.raises(
            kind, match=r"give \.csv, \.tsv, \.json, \.jsonl \(each also as \.gz\), \.txt, a f"
        ) as error:
            load(tmp_path / path)
        assert str(tmp_path / path) in str(error.value)


def test_a_name_near_that_of_the_lessons_is_asked_about() -> None:
    for name in ("lesson", "Lessons", "lessens"):
        with pytest.raises(UsageError, match=f"^{name} is not there: did you mean lessons"):
            load(Path(name))
    with pytest.raises(UsageError) as error:
        load(Path("nowhere"))
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_not_the_working_directory(name: str) -> None:
    with pytest.raises(UsageError, match="--data is empty"):
        data_path(name)


def test_endings_count_in_any_case_and_what_is_left_out_of_a_folder_is_noted(tmp_path: Path) -> None:
    (tmp_path / "BOOK.TXT").write_text("Once upon a time. " * 50, encoding="utf-8")
    (tmp_path / "a.txt").write_text("In the end. " * 50, encoding="utf-8")
    found = load(tmp_path)
    held_out = "holds out 1 of 2 files for validation, with 45 % of the tokens: 'a.txt'"
    assert found.info["files"] == 2 and found.notes == (held_out,)
    assert load(tmp_path / "BOOK.TXT").info["kind"] == "text"
    assert load(write_json(tmp_path / "R.JSON", many(4))).info["kind"] == "alpaca"
    (tmp_path / ".notes.txt").write_text("hidden", encoding="utf-8")
    (tmp_path / "._a.txt").write_bytes(b"\0\5\26\7\377\376")
    for folder in ("below", ".git/objects", "cover.txt"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "below" / "notes.md").write_text("no", encoding="utf-8")
    (tmp_path / ".git" / "objects" / "a.txt").write_text("hidden", encoding="utf-8")
    again = load(tmp_path)
    assert again.info["fingerprint"] == found.info["fingerprint"]
    assert again.notes == (
        f"{tmp_path}: left out 5 entries that are not visible .txt files, the first of them '._a.txt'",
        held_out,
    )
    for name in (".notes.txt", "._a.txt", "R.JSON"):
        (tmp_path / name).unlink()
    (tmp_path / ".git" / "objects" / "a.txt").rename(tmp_path / "b.txt")
    shutil.rmtree(tmp_path / ".git")
    left_out = f"{tmp_path}: left out 1 entry that is not a visible .txt file, 'below/notes.md'"
    assert load(tmp_path).notes[0] == left_out


def test_a_folder_with_records_only_says_to_give_a_file(tmp_path: Path) -> None:
    for name in ("z/b.csv", "a/quiz.jsonl.gz", "a/.hidden.csv", "a/notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a,b", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"nor \.txt files: give a file of records itself, such as .*a/quiz\.jsonl\.gz$"
    ):
        load(tmp_path)


def test_fields_that_are_not_used_are_noted(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", [record | {"topic": "Sums"} for record in many(3)])
    assert "3 of 3 records have other fields" in load(path).notes[0]


def test_lessons_are_records_that_come_with_the_package_unless_a_path_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lessons = load_data(data_path(LESSONS), TrainConfig(), DataConfig(), 256)
    assert len(lessons.train) + len(lessons.val) + len(lessons.test) == 438
    monkeypatch.chdir(tmp_path)
    (tmp_path / LESSONS).mkdir()
    assert data_path(LESSONS) == Path(LESSONS)
