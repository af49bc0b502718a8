"""A wrong name leads to the right one, and a name like no other to none."""

from pathlib import Path

import pytest

from gpt2cli.suggestions import advise, did_you_mean, files_beside, meant

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


def test_files_beside_a_missing_one(tmp_path: Path) -> None:
    for name in ("b.pt", "a.pt", ".hidden.pt"):
        (tmp_path / name).touch()
    (tmp_path / "c.pt").mkdir()
    assert files_beside(tmp_path / "nope.pt") == [str(tmp_path / "a.pt"), str(tmp_path / "b.pt")]
    assert files_beside(tmp_path / "no" / "nope.pt") == []
