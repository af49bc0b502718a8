"""A run's directory: what is in its files, what a resumed run finds there, and who may write to it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2cli.errors import CheckpointError, ResourceError
from gpt2cli.training import run_directory
from gpt2cli.training.events import Evaluated, Event, Finished, Note, Sampled, Saved, Started, Step
from gpt2cli.training.run_directory import RunDirectory, new_run_path, newest_run, read_config, runs

FINISHED = Finished(4, 400, 2.0, 200.0, 900.0, 2.25, 2.5, 4, 2.5, 4, "done")


def events(first: int, last: int) -> list[Event]:
    """A run's events behind step `first`, up to `last`, with an evaluation and answers at each second step."""
    told: list[Event] = [Started(first, 4, 1, 10, 2, 5, 5)]
    for step in range(first + 1, last + 1):
        told.append(Step(step, step / 4, 1 / step, 2 / step, 1e-4, 1.5, 100, 40, 333.3))
        if step % 2 == 0:
            told += [Evaluated(step, 100 * step, 2.5, True), Sampled(step, [("Say it", f"at step {step}")])]
    return told


def write(path: Path, told: list[Event]) -> None:
    with RunDirectory(path) as run:
        for event in told:
            run.handle(event)


def test_each_step_and_evaluation_is_a_line(tmp_path: Path) -> None:
    write(tmp_path, [*events(0, 2), Note("aside"), Saved(2, tmp_path)])
    first, _, evaluated = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first == {
        **{"kind": "step", "step": 1, "epoch": 0.25, "loss": 1.0, "smoothed_loss": 2.0, "lr": 1e-4},
        **{"grad_norm": 1.5, "tokens": 100, "targets": 40, "tok_s": 333.3},
    }
    assert evaluated == {"kind": "eval", "step": 2, "tokens_seen": 200, "val_loss": 2.5}


def test_a_line_is_in_the_file_as_soon_as_it_is_told(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as run:
        run.handle(events(0, 1)[1])
        assert (tmp_path / "metrics.jsonl").read_bytes().endswith(b"}\n")


def test_config_summary_and_plot(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "a" / "run") as run:
        run.write_config({"lr": 1e-4, "data": Path("x.json")})
        assert read_config(run.path) == {"lr": 1e-4, "data": "x.json"}
        assert run.checkpoints == run.path / "checkpoints"
        for event in [*events(0, 4), FINISHED]:
            run.handle(event)
        summary = json.loads((run.path / "summary.json").read_text())
        assert summary["steps"] == 4 and summary["best_val_loss"] == 2.5 and summary["reason"] == "done"
        assert (run.path / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("content", [None, "[1]", '{"a":'])
def test_a_config_that_cannot_be_read_is_named(tmp_path: Path, content: str | None) -> None:
    with RunDirectory(tmp_path) as run:
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            read_config(run.path)


@pytest.mark.parametrize("checkpoint", [0, 1, 2, 3, 4])
def test_resumed_files_read_as_those_of_an_unbroken_run(tmp_path: Path, checkpoint: int) -> None:
    write(tmp_path / "unbroken", events(0, 4))
    write(tmp_path / "killed", events(0, 4))
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')  # torn by kill -9
    write(tmp_path / "killed", events(checkpoint, 4))
    for name in ("metrics.jsonl", "samples.md"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()


def test_an_evaluation_before_the_first_step_is_not_kept_twice(tmp_path: Path) -> None:
    write(tmp_path, [Started(0, 4, 1, 10, 2, 5, 5), Evaluated(0, 0, 4.0, True)])
    write(tmp_path, [Started(0, 4, 1, 10, 2, 5, 5), Evaluated(0, 0, 4.0, True)])
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_answers_cannot_break_out_of_their_block(tmp_path: Path) -> None:
    nasty = "```\n## Step 9\n<b>\r# head\x85\x1b[31m\u2028## Step 8\n\n~~~\n"
    write(tmp_path, [Sampled(1, [(nasty, nasty), ("", "")])])
    lines = (tmp_path / "samples.md").read_text(encoding="utf-8").splitlines()
    ours = [line for line in lines if line and not line.startswith("    ")]
    assert ours == ["## Step 1", *["Prompt:", "Answer:"] * 2]
    assert r"    \x1b[31m" in lines
    write(tmp_path, [Started(1, 4, 1, 10, 2, 5, 5)])
    assert (tmp_path / "samples.md").read_text(encoding="utf-8").splitlines() == lines


def test_a_second_run_is_refused_by_pid_and_kill_9_lets_go(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from gpt2cli.training.run_directory import RunDirectory\n"
        "run = RunDirectory(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert other.stdout and other.stdout.readline() == b"held\n"
        for _ in range(2):  # a refused one leaves the pid where it is
            with pytest.raises(ResourceError, match=f"locked by pid {other.pid}:") as refusal:
                RunDirectory(tmp_path)
        assert refusal.value.exit_code == 6
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.communicate()
    with RunDirectory(tmp_path), pytest.raises(ResourceError, match=f"pid {os.getpid()}"):
        RunDirectory(tmp_path)
    RunDirectory(tmp_path).close()


def test_a_plot_that_fails_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_directory, "SECONDS_BETWEEN_PLOTS", 0.0)
    monkeypatch.setattr(run_directory, "plot_losses", lambda metrics, out: "no loss.png: because")
    notes: list[str] = []
    with RunDirectory(tmp_path, notes.append) as run:
        for event in [*events(0, 4), FINISHED]:
            run.handle(event)
    assert notes == ["no loss.png: because"] and (tmp_path / "summary.json").exists()


def test_new_runs_have_names_of_their_own_and_the_newest_is_found(home: Path) -> None:
    assert newest_run() is None
    first = new_run_path("my data/../set")
    assert first.parent == runs() == home / "runs" and first.name.endswith("-my-data-..-set")
    for _ in range(2):
        with RunDirectory(new_run_path("my data/../set")) as run:
            run.write_config({})
    assert len(list(runs().iterdir())) == 2
    (runs() / "99990101-000000-not-begun").mkdir()
    assert newest_run() == max(path.parent for path in runs().glob("*/config.json"))
