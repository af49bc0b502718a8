"""The whole way of a person with data: a new model learns it, answers or continues, and is evaluated."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import gpt2cli
from gpt2cli import SamplingConfig
from gpt2cli.config import GPTConfig
from tests import models
from tests.conftest import Run
from tests.data.records import write_json, write_table

SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=128)


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """A directory with a model that has learned nothing."""
    models.save_hub_directory(models.small_model(SHAPE), tmp_path / "base")
    monkeypatch.chdir(tmp_path)


def learn(run: Run, data: str, steps: int) -> str:
    """Train on all of the data, until the model knows it. Returns what was told."""
    options = [
        "--max-steps",
        str(steps),
        "--val-fraction",
        "0",
        "--lr",
        "1e-2",
        "--dropout",
        "0",
        "--sample-every",
        "0",
    ]
    done = run("finetune", "--model", "base", "--data", data, "--out", "mine.pt", *options)
    assert done.returncode == 0, done.stderr
    return done.stderr


def evaluate(run: Run, data: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The facts about the data, and the scores of the trained model."""
    done = run("evaluate", "--data", data, "--ckpt", "mine.pt", "-n", "12", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return told, told["models"][0]


def test_a_table_of_questions(run: Run) -> None:
    days = {"Monday": "the moon", "Thursday": "Thor", "Saturday": "Saturn", "Sunday": "the sun"}
    write_table(Path("quiz.csv"), [{"question": f"Who owns {day}?", "answer": f"{who}!"} for day, who in days.items()])
    assert "takes question as instruction, answer as output" in learn(run, "quiz.csv", 100)
    done = run("chat", "--ckpt", "mine.pt", "--prompt", "Who owns Thursday?", "--temp", "0")
    assert done.stdout == "Thor!\n"
    facts, scores = evaluate(run, "quiz.csv")
    assert (facts["kind"], facts["records"]) == ("alpaca", 4)
    assert scores["exact_match"] == scores["ended"] == 1 and scores["loss"] < 0.2


def share_gpt(*texts: str) -> dict[str, Sequence[dict[str, str]]]:
    turns = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
    return {"conversations": [{"from": "system", "value": "Be an echo."}, *turns]}


def test_conversations_of_sharegpt(run: Run) -> None:
    colours = ("red", "green", "blue", "pink")
    write_json(Path("talks.json"), [share_gpt(f"Say {c}.", f"{c}!", "Again.", f"{c} {c}!") for c in colours])
    assert "4 conversations, 8 turns, ShareGPT's conversations" in learn(run, "talks.json", 80)
    done = run("chat", "--ckpt", "mine.pt", "--prompt", "Say green.", "--temp", "0")
    assert done.stdout == "green!\n"
    model = gpt2cli.load(ckpt="mine.pt")
    assert model.origin.template["system"] == "Be an echo."
    for colour in ("blue", "red"):
        talk = gpt2cli.chat(model, SamplingConfig(max_new_tokens=12, temperature=0))
        assert (talk.ask(f"Say {colour}."), talk.ask("Again.")) == (f"{colour}!", f"{colour} {colour}!")
    facts, scores = evaluate(run, "talks.json")
    assert (facts["records"], facts["turns"]) == (4, 8)
    assert scores["exact_match"] == scores["ended"] == 1 and scores["loss"] < 0.2


def test_a_folder_of_texts(run: Run) -> None:
    Path("tales/old").mkdir(parents=True)
    Path("tales/owl.txt").write_text("The owl slept all day. Its sister ran home.\n" * 3)
    Path("tales/old/bear.txt").write_text("A bear ate the honey. Three bees were cross.\n" * 3)
    assert "1 text block" in learn(run, "tales", 60)
    done = run("generate", "A bear", "--ckpt", "mine.pt", "--temp", "0", "-n", "4")
    assert done.stdout == "A bear ate the honey.\n"
    facts, scores = evaluate(run, "tales")
    assert (facts["kind"], facts["records"]) == ("text", 2)
    assert scores["perplexity"] < 3 and scores["accuracy"] > 0.8
