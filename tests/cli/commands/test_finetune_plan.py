"""`gpt2 finetune` says before the first step what it takes, and `--dry-run` says only that."""

import json
from pathlib import Path

import pytest

from tests import models
from tests.cli.commands.test_finetune import SHAPE
from tests.training.records import write_records


@pytest.fixture
def args(tmp_path):
    base = models.save_hub_directory(models.small_model(SHAPE), tmp_path / "base")
    data = write_records(tmp_path / "records.json", 48)
    args = ["--model", str(base), "--data", str(data), "--sample-every", "0", "--device", "cpu", "--epochs", "1"]
    return [*args, "--run-dir", str(tmp_path / "run"), "--out", str(tmp_path / "out.pt")]


def objects(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def tree(place: Path) -> list[Path]:
    return sorted(place.rglob("*"))


@pytest.mark.parametrize("more", [(), ("--lora",), ("--max-steps", "3", "--batch-size", "2")])
def test_a_dry_run_plans_the_run_and_writes_nothing(args, more, tmp_path, run, home):
    before = tree(tmp_path)
    planned = run("finetune", *args, *more, "--dry-run", "--json")
    assert planned.returncode == 0, planned.stderr
    assert tree(tmp_path) == before
    (plan,) = objects(planned.stdout)
    done = run("finetune", *args, *more, "--json")
    assert done.returncode == 0, done.stderr
    first, second, *rest = objects(done.stdout)
    assert first["kind"] == plan["kind"] == "plan"
    assert second["kind"] == "started"
    measured = ("seconds", "memory", "free_memory", "free_run", "free_out")
    assert {**plan, **dict.fromkeys(measured)} == {**first, **dict.fromkeys(measured)}
    taken = [line for line in rest if line["kind"] == "step"]
    assert plan["steps"] == len(taken) == second["total_steps"]
    assert plan["examples"] == second["train_examples"]
    if not more:
        assert plan["tokens"] == sum(step["tokens"] for step in taken)
        written = sum(file.stat().st_size for file in (tmp_path / "run").rglob("*.safetensors"))
        assert plan["disk"]["run"] > written


def test_the_plan_is_the_result_of_a_dry_run_and_a_note_of_a_run(args, run):
    planned = run("finetune", *args, "--dry-run", "--quiet")
    lines = planned.stdout.splitlines()
    assert len(lines) == 4 and lines[0].startswith("43 records") and "GB free" in lines[2] and "GB free" in lines[3]
    assert planned.stderr == ""
    done = run("finetune", *args, "--max-steps", "1")
    assert "tokens an epoch: 1 step in 1 epoch" in done.stderr
    assert "1 step is few to learn from" in done.stderr
    assert done.stdout == ""


def test_a_dry_run_replaces_nothing_so_it_needs_no_force(args, tmp_path, run):
    (tmp_path / "out.pt").write_text("mine")
    dry = run("finetune", *args, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert run("finetune", *args).returncode == 2 and (tmp_path / "out.pt").read_text() == "mine"


def test_what_is_held_out_can_be_trained_on_too_unless_it_was_prepared_so(args, tmp_path, run, home):
    advice = "--val-fraction 0 trains on all"
    assert advice in run("finetune", *args, "--dry-run").stderr
    assert advice not in run("finetune", *args, "--dry-run", "--val-fraction", "0").stderr
    prepared = ["--out", str(tmp_path / "prepared")]
    assert run("prepare-alpaca", "--source", str(tmp_path / "records.json"), *prepared).returncode == 0
    done = run("finetune", *args, "--dry-run", "--data", str(tmp_path / "prepared"))
    assert done.returncode == 0 and advice not in done.stderr, done.stderr


def test_conversations_are_called_so(args, tmp_path, run):
    talk = [{"role": role, "content": "Hello."} for role in ("user", "assistant") * 2]
    (tmp_path / "talks.jsonl").write_text((json.dumps({"messages": talk}) + "\n") * 20)
    done = run("finetune", *args, "--model", "tiny", "--data", str(tmp_path / "talks.jsonl"), "--max-steps", "1")
    assert done.returncode == 0, done.stderr
    assert "18 conversations, " in done.stderr and "with 2 conversations held out" in done.stderr
    assert "record" not in done.stderr


def test_a_published_model_is_planned_without_its_weights(args, tmp_path, run, home):
    options = ["--model", "distilgpt2", *args[2:], "--dry-run", "--offline", "--json"]
    (plan,) = objects(run("finetune", *options).stdout)
    (small,) = objects(run("finetune", *options, "--lora").stdout)
    assert plan["disk"]["out"] == pytest.approx(4 * 81.9e6, rel=0.01)
    assert plan["memory"] > small["memory"] + 600e6
    assert plan["disk"]["run"] > 5 * small["disk"]["run"]
    unknown = run("finetune", "--model", "owner/name", *args[2:], "--dry-run")
    assert unknown.returncode == 2
    assert "fetch it first: gpt2 download-weights owner/name" in unknown.stderr


@pytest.mark.parametrize("bad", [("--out", "/proc/o.pt"), ("--run-dir", "/proc/r"), ("--data", "no.json")])
def test_a_dry_run_checks_what_can_be_checked(args, bad, run):
    dry = run("finetune", *args, *bad, "--dry-run")
    wet = run("finetune", *args, *bad)
    assert (dry.returncode, dry.stderr) == (wet.returncode, wet.stderr)
    assert dry.returncode in (2, 6)


def test_a_resumed_run_is_told_what_is_left(args, tmp_path, run):
    done = run("finetune", *args, "--save-every", "2", "--keep-states")
    assert done.returncode == 0, done.stderr
    (tmp_path / "run" / "summary.json").unlink()
    place = min((tmp_path / "run" / "checkpoints").iterdir())
    before = tree(tmp_path)
    dry = run("finetune", "--resume", str(place), "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    (plan,) = objects(dry.stdout)
    assert plan["step"] == int(place.name.removeprefix("step-")) < plan["steps"]
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_the_memory_is_as_planned(tmp_path, run_process):
    (tmp_path / "book.txt").write_text("Once there was a fox who liked the rain. " * 4000)
    shape = ["--from-scratch", "--n-layer", "4", "--n-head", "4", "--n-embd", "256", "--block-size", "256"]
    more = ["--data", str(tmp_path / "book.txt"), "--max-steps", "3", "--device", "cpu", "--json"]
    more += ["--sample-every", "0", "--run-dir", str(tmp_path / "run"), "--out", str(tmp_path / "o.pt")]
    (plan, *_) = objects(run_process("finetune", *shape, *more).stdout)
    peak = json.loads((tmp_path / "run" / "summary.json").read_text())["peak_rss_mb"] * 2**20
    assert 0.75 < plan["memory"] / peak < 1.33
