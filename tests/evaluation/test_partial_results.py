"""Partial results: written, found again, damaged, deleted."""

import os
import time

import pytest

from gpt2cli.evaluation import partial_results
from gpt2cli.evaluation.partial_results import MAX_AGE, PartialResults


def test_results_are_found_only_under_the_same_key(home):
    kept = PartialResults("model", {"n": 1})
    for i in range(3):
        kept.add(f"answer {i}", ["text\n\x1b", i / 3])
    assert PartialResults("model", {"n": 1}).findings == {f"answer {i}": ["text\n\x1b", i / 3] for i in range(3)}
    assert PartialResults("model", {"n": 2}).findings == PartialResults("other", {"n": 1}).findings == {}
    kept.discard()
    kept.discard()
    assert PartialResults("model", {"n": 1}).findings == {} and not list((home / "evaluations").iterdir())


@pytest.mark.parametrize("spoil", [lambda b: b[:-4], lambda b: b.replace(b"two", b"six"), lambda b: b + b"\xff\x00 []"])
def test_damaged_lines_are_ignored_and_later_lines_are_read(home, spoil):
    kept = PartialResults("a")
    kept.add("one", "one")
    kept.add("two", "two")
    before = kept.path.read_bytes()
    kept.path.write_bytes(spoil(before))
    found = PartialResults("a").findings
    assert found.items() <= {"one": "one", "two": "two"}.items() and "one" in found
    PartialResults("a").add("three", 3)
    assert PartialResults("a").findings == found | {"three": 3}


def test_old_files_are_deleted(home):
    old, new = PartialResults("old"), PartialResults("new")
    old.add("a", 1)
    os.utime(old.path, (time.time() - MAX_AGE - 9,) * 2)
    new.add("a", 1)
    assert not old.path.exists() and new.path.exists()


def test_a_directory_that_cannot_be_written_raises_no_error(home):
    home.parent.mkdir(exist_ok=True)
    home.write_text("a file")
    kept = PartialResults("a")
    kept.add("a", 1)
    kept.add("b", 2)
    kept.discard()


def test_a_directory_that_cannot_be_written_is_a_problem_from_the_start(home):
    home.parent.mkdir(exist_ok=True)
    home.write_text("a file")
    problem = PartialResults("a").problem
    assert problem.startswith("partial results cannot be saved (cannot write ") and str(home / "evaluations") in problem
    home.unlink()
    assert PartialResults("a").problem == "" and not home.exists()


@pytest.mark.parametrize("said", [b"[1]", b"7", b'[["a"], 1]', b"[" * 100_000, b'["a", 1, 2]', b"nonsense"])
def test_odd_content_with_a_right_digest_is_ignored(home, said):
    kept = PartialResults("a")
    kept.add("one", 1)
    kept.path.write_bytes(kept.path.read_bytes() + partial_results._digest(said).encode() + b" " + said + b"\n")
    assert PartialResults("a").findings == {"one": 1}


def test_a_file_that_is_too_large_is_not_read(home, monkeypatch):
    kept = PartialResults("a")
    kept.add("one", 1)
    monkeypatch.setattr(partial_results, "MAX_BYTES", 10)
    assert PartialResults("a").findings == {}
