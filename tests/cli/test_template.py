"""`--template` in all commands that put instructions to a model, or make training data of them."""

import json
from pathlib import Path

import pytest

from gpt2cli.checkpoints.metadata import read_metadata
from gpt2cli.data.prepared import read_prepared
from gpt2cli.prompts import PromptTemplate
from gpt2cli.tokenizer import decode
from tests.conftest import Run
from tests.data.records import many, write_json

MINE = PromptTemplate("Q: {instruction}\nAbout: {input}\nA: ", "Q: {instruction}\nA: ")
SMALL = ("--from-scratch", "--n-layer", "1", "--n-head", "1", "--n-embd", "8", "--block-size", "64", "--max-steps", "1")
QUIET = ("--eval-every", "0", "--sample-every", "0", "--save-every", "0")


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Records, and a template, in files."""
    (tmp_path / "mine.json").write_text(json.dumps(MINE.to_dict()))
    return str(write_json(tmp_path / "records.json", many(12))), str(tmp_path / "mine.json")


def test_records_are_prepared_in_it(run: Run, files: tuple[str, str], tmp_path: Path) -> None:
    records, template = files
    done = run("prepare-alpaca", "--source", records, "--template", template, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    splits = read_prepared(tmp_path / "out")
    assert splits.template == MINE
    assert decode(splits.train[0][0].tolist()).startswith("Q: ")
    again = run("finetune", "--data", str(tmp_path / "out"), "--template", "seed", *SMALL)
    assert again.returncode == 2 and "--template cannot change prepared data" in again.stderr


def test_a_model_is_tuned_in_it_and_then_asked_in_it(run: Run, files: tuple[str, str], tmp_path: Path) -> None:
    records, template = files
    out, place = str(tmp_path / "a.pt"), str(tmp_path / "run")
    done = run("finetune", "--data", records, "--template", template, "--out", out, "--run-dir", place, *SMALL, *QUIET)
    assert done.returncode == 0, done.stderr
    assert read_metadata(out).prompt_template(out) == MINE
    assert json.loads((tmp_path / "run" / "config.json").read_text())["template"] == MINE.to_dict()
    asked = run("chat", "--ckpt", out, "--prompt", "Why?", "-n", "1", "--json")
    assert json.loads(asked.stdout)["stats"]["prompt_tokens"] < 10
    told = [
        json.loads(run("evaluate", "--data", records, "--ckpt", out, "--answers", "0", "--json", *options).stdout)
        for options in ((), ("--template", template), ("--template", "seed"))
    ]
    losses = [each["models"][0]["loss"] for each in told]
    assert losses[0] == losses[1] != losses[2]


def test_plain_text_has_no_template(run: Run, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("Once upon a time. " * 100)
    done = run("finetune", "--data", str(tmp_path / "book.txt"), "--template", "seed", *SMALL)
    assert done.returncode == 2 and "--template is for instructions" in done.stderr
    done = run("evaluate", "--data", str(tmp_path / "book.txt"), "--template", "seed", "--model", "tiny")
    assert done.returncode == 2 and "--template is for instructions" in done.stderr
