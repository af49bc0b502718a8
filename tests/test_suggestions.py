"""A wrong name leads to the right one, and a name like no other to none."""

from pathlib import Path

import pytest

from gpt2cli.suggestions import advise, did_you_mean, did_you_mean_file, meant

MODELS = ("tiny", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        *(("tinny", "tiny"), ("GPT-2", "gpt2"), ("gpt2xl", "gpt2-xl"), ("gpt2_medium", "gpt2-medium")),
        *(("distil", "distilgpt2"), ("small", "gpt2"), ("llama", None), ("", None), ("x", None), ("---", None)),
    ],
)
def test_case_and_punctuation_do_not_count(wrong: str, right: str | None) -> None:
    assert meant(wrong, MODELS, {"small": "gpt2"}) == right


def test_a_known_name_is_meant_by_itself() -> None:
    assert all(meant(name, MODELS) == name for name in MODELS)


def test_the_question_comes_before_the_advice() -> None:
    assert advise(did_you_mean("tinny", MODELS), "give a name") == "did you mean tiny? Otherwise give a name"
    assert advise(did_you_mean("llama", MODELS), "give a name") == "give a name"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        *(("finetune.pt", "finetuned.pt"), ("finetuned.safetensors", "finetuned.pt"), ("finetuned", "finetuned.pt")),
        *(("Модел.pt", "модель.pt"), ("данные.pt", None), ("xyz.pt", None), ("hidden.pt", None), ("folder", None)),
    ],
)
def test_a_missing_file_leads_to_one_of_a_similar_name(wrong: str, right: str | None, tmp_path: Path) -> None:
    directory = tmp_path / "a-long-name-that-all-files-have-in-common"
    (directory / "folder.pt").mkdir(parents=True)
    for name in ("finetuned.pt", "модель.pt", "notes.txt", ".hidden.pt"):
        (directory / name).touch()
    expected = f"did you mean {directory / right}?" if right else ""
    assert did_you_mean_file(directory / wrong) == did_you_mean_file(directory / wrong, (".pt",)) == expected
    assert did_you_mean_file(tmp_path / "no" / wrong) == did_you_mean_file(Path("a\0b") / wrong) == ""


def test_only_files_of_these_endings_or_other_names_are_meant(tmp_path: Path) -> None:
    (tmp_path / "NOTES.TXT").touch()
    assert did_you_mean_file(tmp_path / "note.txt", (".txt",)) == f"did you mean {tmp_path / 'NOTES.TXT'}?"
    assert did_you_mean_file(tmp_path / "note.txt", (".csv",)) == ""
    assert did_you_mean_file(Path("lesson"), (".csv",), ["lessons"]) == "did you mean lessons?"
