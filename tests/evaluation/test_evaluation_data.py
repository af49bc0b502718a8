"""Records out of prepared data are the records that went in."""

from dataclasses import replace

import pytest

from gpt2cli.config import DataConfig, TrainConfig
from gpt2cli.data.open_data import load_records
from gpt2cli.data.prepared import write_prepared
from gpt2cli.data.records import Record, read_records
from gpt2cli.errors import DataError, UsageError
from gpt2cli.evaluation.evaluation_data import Instructions, Texts, read_data
from gpt2cli.prompts import ALPACA
from gpt2cli.tokenizer import END_OF_TEXT_ID, encode
from tests.data.records import RECORDS, many, write_json


def read(path, split=None, block_size=200, division=DataConfig(test_fraction=0)):  # noqa: B008
    return read_data(path, path.name, split, block_size, TrainConfig(), division)


def blank_as_none(record: Record) -> Record:
    """A blank input is none, for the template."""
    return replace(record, input=record.input if record.input.strip() else "")


@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_prepared_records_come_back(tmp_path, loss_on):
    file = write_json(tmp_path / "records.json", [*RECORDS, *many(20)])
    splits = load_records(file, 200, loss_on, DataConfig(0.2, 0.2))
    write_prepared(splits, tmp_path / "made")
    whole = [blank_as_none(record) for record in read_records(file).good]
    assert sorted(map(str, whole)) == sorted(str(task.record) for task in read(tmp_path / "made", "all").tasks)
    default = read(tmp_path / "made")
    assert default.split == "test" and len(default.tasks) == len(splits.test)
    assert all(task.response == [*encode(task.record.output), END_OF_TEXT_ID] for task in read(file).tasks[:3])
    # a file is divided as finetune does it
    val = read(file, "val", division=DataConfig(0.2, 0.2))
    assert [task.record for task in val.tasks] == [task.record for task in read(tmp_path / "made", "val").tasks]


def test_what_an_earlier_version_prepared_is_to_be_prepared_again(tmp_path):
    splits = load_records(write_json(tmp_path / "a.json", many(5)), 200, "response", DataConfig(0.2, 0.2))
    write_prepared(replace(splits, records={}), tmp_path / "made")
    with pytest.raises(DataError, match=r"made was prepared by an earlier version .*: prepare it again"):
        read(tmp_path / "made")


@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_records_that_hold_the_words_of_the_template_stay_whole(tmp_path, loss_on):
    odd = {
        "instruction": "Say\n\n### Response:\nA",
        "input": "### Input:\nx\n\n### Response:\n",
        "output": "### Input:\n",
    }
    splits = load_records(write_json(tmp_path / "a.json", [odd]), 200, loss_on, DataConfig(0, 0))
    write_prepared(splits, tmp_path / "made")
    [task] = read(tmp_path / "made", "train").tasks
    assert task.record == Record(**odd) and task.response == [*encode(odd["output"]), END_OF_TEXT_ID]


@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_a_response_that_was_cut_within_a_character_ends_there(tmp_path, loss_on):
    record = {"instruction": "Wave.", "output": "👋🏽"}
    prompt = len(encode(ALPACA.prompt("Wave.")))
    write_prepared(
        load_records(write_json(tmp_path / "a.json", [record]), prompt + 1, loss_on, DataConfig(0, 0)),
        tmp_path / "made",
    )
    [task] = read(tmp_path / "made", "train").tasks
    assert task.response == encode("👋🏽")[:1] and task.record.output == "\ufffd"


@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_a_response_that_was_cut_has_no_end(tmp_path, loss_on):
    record = {"instruction": "Count.", "output": "one two three four five six seven"}
    prompt = len(encode(ALPACA.prompt("Count.")))
    splits = load_records(write_json(tmp_path / "a.json", [record]), prompt + 3, loss_on, DataConfig(0, 0))
    write_prepared(splits, tmp_path / "made")
    [task] = read(tmp_path / "made", "train").tasks
    assert task.response == encode("one two three") and task.record.output == "one two three"


def test_nothing_to_evaluate_on_is_an_error(tmp_path):
    file = write_json(tmp_path / "records.json", many(5))
    write_prepared(load_records(file, 200, "response", DataConfig(0.2, 0)), tmp_path / "made")
    with pytest.raises(
        DataError,
        match=r"the test split of .* is empty: choose --split train \(4 records\) or val \(1 record\), or all",
    ):
        read(tmp_path / "made")
    with pytest.raises(DataError, match=r"the val split of .* is empty"):
        read(file, "val", division=DataConfig(0, 0))
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match="no text"):
        read(tmp_path / "empty.txt")
    with pytest.raises(UsageError, match="not a known data format"):
        read(write_json(tmp_path / "a.pdf", []))
    with pytest.raises(UsageError, match="is not there"):
        read(tmp_path / "nowhere")


def test_what_is_wrong_is_said_by_the_name_that_was_given(tmp_path):
    file = write_json(tmp_path / "records.json", many(5))
    with pytest.raises(DataError, match=r"^the test split of lessons is empty"):
        read_data(file, "lessons", "test", 200, TrainConfig(), DataConfig(0.2, 0))


def ask(path, split=None):
    return read_data(path, path.name, split, 200, TrainConfig(), DataConfig(0.2, 0), questions=True)


def test_each_line_of_a_file_is_a_question_if_that_is_asked_for(tmp_path):
    path = tmp_path / "q.txt"
    path.write_bytes("\ufeffWho are you?\r\n\r\n  What ends a text? <|endoftext|>\n \nΓειά\u2028σου;".encode())
    found = ask(path)
    asked = ["Who are you?", "What ends a text? <|endoftext|>", "Γειά\u2028σου;"]
    assert [task.record for task in found.tasks] == [Record(line, "", "") for line in asked]
    assert (found.has_references, found.split, found.noun, found.notes) == (False, "all", "question", ())
    [note] = read(path).notes
    assert note == "q.txt is taken as plain text. If each line is a question, use --questions"
    (tmp_path / "blank.txt").write_text(" \n\n")
    with pytest.raises(DataError, match=r"^blank\.txt has no questions: write one on each line"):
        ask(tmp_path / "blank.txt")
    with pytest.raises(UsageError, match=r"is a folder: for --questions give one \.txt file"):
        ask(tmp_path)
    with pytest.raises(UsageError, match="leave --split out"):
        ask(path, "val")


def test_records_are_questions_if_none_has_an_output_or_if_that_is_asked_for(tmp_path):
    records = many(10)
    file = write_json(tmp_path / "a.json", records)
    blank = write_json(tmp_path / "blank.json", [record | {"output": " "} for record in records])
    asked, inferred = ask(file), read(blank)
    without = write_json(tmp_path / "no.json", [{"instruction": record["instruction"]} for record in records])
    assert asked.tasks == inferred.tasks == read(without).tasks == ask(without).tasks
    assert not asked.has_references and not inferred.has_references
    assert [task.record.instruction for task in asked.tasks] == [record["instruction"] for record in records]
    assert all(task.response == [] and task.record.output == "" for task in asked.tasks)
    assert asked.notes == ask(blank).notes == ()
    assert inferred.notes == ("blank.json: no record has an output, so the answers are shown without scores",)
    assert [task.record.instruction for task in ask(file, "val").tasks] == [
        task.record.instruction for task in read(file, "val", division=DataConfig(0.2, 0)).tasks
    ]


def test_a_note_counts_the_records_that_have_no_output(tmp_path):
    found = read(write_json(tmp_path / "a.json", [*many(3), {"instruction": "Say nothing.", "output": ""}]))
    assert len(found.tasks) == 3 and found.has_references
    assert found.notes == (
        "a.json: left out 1 of 4 records, which have no output. With --questions all are answered, without scores",
    )


def test_endings_count_in_any_case(tmp_path):
    (tmp_path / "A.TXT").write_text("One")
    assert isinstance(read(tmp_path / "A.TXT"), Texts)
    assert len(read(write_json(tmp_path / "B.JSON", many(3))).tasks) == 3
    assert len(read(write_json(tmp_path / "B.JSON", many(10)), "val", division=DataConfig(0.2, 0)).tasks) == 2


def test_a_separated_document_is_a_text_and_what_is_left_out_is_noted(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffOne tale.\r\n<|endoftext|>\r\nTwo tales.\r\n<|endoftext|>\r\n\r\n".encode())
    (tmp_path / "._a.txt").write_bytes(b"\0\5\26\7\377\376")
    found = read(tmp_path)
    assert [tokens.tolist() for tokens in found.tokens] == [encode("One tale.\n"), encode("Two tales.\n")]
    assert found.names == ["a.txt", "a.txt"]
    [note] = found.notes
    assert "left out 1 entry" in note and "'._a.txt'" in note


def test_texts_in_subfolders_are_named_by_their_paths(tmp_path):
    for name in ("b/a.txt", "a.txt", "b/c/a.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"The tale of {name}.")
    found = read(tmp_path)
    assert (found.names, found.notes) == (["a.txt", "b/a.txt", "b/c/a.txt"], ())


def test_texts_in_records_are_plain_text(tmp_path):
    path = write_json(tmp_path / "a.json", [{"text": "One tale."}, {"text": ""}, {"text": "Two <|endoftext|>"}])
    found = read(path)
    assert isinstance(found, Texts) and found.names == ["a.json"] * 2
    assert [tokens.tolist() for tokens in found.tokens] == [
        encode("One tale."),
        encode("Two <|endoftext|>", allow_special=False),
    ]
    assert found.notes == ("2 documents of plain text", "1 of 3 documents are blank, and are left out")
    with pytest.raises(UsageError, match="has no splits, as it holds no records"):
        read(path, "val")
    with pytest.raises(UsageError, match="plain text, not questions: add --columns instruction=COLUMN"):
        ask(path)
    columns = {"instruction": "text"}
    asked = read_data(path, "a", None, 200, TrainConfig(), DataConfig(), columns=columns, questions=True)
    assert [task.record.instruction for task in asked.tasks] == ["One tale.", "", "Two <|endoftext|>"]


def test_malformed_records_are_skipped_if_that_is_asked_for(tmp_path):
    path = write_json(tmp_path / "a.json", [{"instruction": "a"}, *many(4)])
    with pytest.raises(DataError, match="record 1 has no 'output'"):
        read(path)
    found = read_data(path, "a.json", None, 200, TrainConfig(), DataConfig(), skip_bad=True)
    assert len(found.tasks) == 4 and "skipped 1 malformed" in found.notes[0]


def test_texts_are_taken_file_by_file(tmp_path):
    (tmp_path / "b.txt").write_text("Two words <|endoftext|>")
    (tmp_path / "a.txt").write_text("One")
    (tmp_path / "c.txt").write_text("")
    found = read(tmp_path)
    assert isinstance(found, Texts) and found.names == ["a.txt", "b.txt"]
    assert found.tokens[1].tolist()[:2] == encode("Two words") and END_OF_TEXT_ID not in found.tokens[1].tolist()
    assert [sizes.sum(dim=0).tolist() for sizes in found.sizes] == [[3, 1], [23, 3]]
    with pytest.raises(UsageError, match="has no splits, as it holds no records: leave --split out"):
        read(tmp_path, "test")
    assert isinstance(read_data(tmp_path / "a.txt", "a", "all", 8, TrainConfig(), DataConfig()), Texts)
    assert not isinstance(found, Instructions)
