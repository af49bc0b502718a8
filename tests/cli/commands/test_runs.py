"""`gpt2 runs`: what it shows, and what it asks before it deletes."""

import json
import os
from pathlib import Path

import pytest

from gpt2cli.cli.environment import Environment
from tests.conftest import Run
from tests.runner import Pipe, call, screen
from tests.training.test_run_list import make_run
from tests.training.test_run_removal import with_weights

A, B = "20260101-000000-records", "20260202-000000-a-name-as-long-as-names-of-runs-can-be-40"


@pytest.fixture
def two(home: Path) -> tuple[Path, Path]:
    """A run that is done and keeps its checkpoints, and a newer one that was interrupted."""
    done = with_weights(make_run(home / "runs" / A))
    return done, make_run(home / "runs" / B, reason="interrupted", out=None, steps=3)


def answering(answer: str, *args: str) -> tuple[int, str]:
    """The exit code and the output of the command on a terminal where somebody types an answer."""
    stdin, shown = Pipe(answer.encode(), terminal=True), Pipe(terminal=True)
    code = call(
        args, Environment(stdin, shown, shown, os.environ), {"TERM": "xterm", "COLUMNS": "200", "NO_COLOR": "1"}
    )
    return code, shown.written()


@pytest.mark.usefixtures("two")
def test_in_a_pipe_each_run_is_a_line(run: Run, home: Path) -> None:
    done = run("runs")
    assert done.returncode == 0, done.stderr
    titles, newest, oldest = done.stdout.splitlines()
    assert titles.split() == ["run", "state", "steps", "best", "val.", "loss", "size", "started", "model", "data"]
    assert newest.split()[:4] == [B, "interrupted", "3/12", "2.500"]
    assert oldest.split()[:4] == [A, "done", "4/12", "2.500"]
    assert oldest.split()[-2:] == ["tiny", "records.json"]
    assert f"2 runs in {home / 'runs'}, " in done.stderr and "`gpt2 runs --prune` frees 10 bytes" in done.stderr


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_on_a_terminal_nothing_is_cut_or_too_wide(columns: int) -> None:
    shown = screen("runs", COLUMNS=str(columns), NO_COLOR="1").splitlines()
    words = " ".join(shown).replace("·", " ").split()
    assert {A, B, "interrupted", "2.500", "records.json", "tiny"} <= set(words)
    assert all(len(line) <= columns for line in shown if B not in line and "frees" not in line)
    assert (len(shown) == 4) == (columns == 200)


def test_json_has_an_object_for_each_run(run: Run, two: tuple[Path, Path]) -> None:
    newest, oldest = map(json.loads, run("runs", "--json").stdout.splitlines())
    fields = "run path data model started_at steps total_steps best_val_loss bytes state out"
    assert list(newest) == list(oldest) == fields.split()
    assert (oldest["run"], oldest["path"], oldest["out"]) == (A, str(two[0]), "/x/out.pt")
    assert (newest["state"], newest["steps"], newest["total_steps"], newest["out"]) == ("interrupted", 3, 12, None)


def test_without_runs_it_says_how_to_make_one(run: Run, home: Path) -> None:
    done = run("runs")
    assert (done.returncode, done.stdout) == (0, "") and "`gpt2 finetune` starts one" in done.stderr
    assert not home.exists()
    assert "nothing to do" in run("runs", "--prune").stderr


def test_it_asks_before_it_deletes(two: tuple[Path, Path]) -> None:
    for answer in ("", "\n", "n\n", "no\n"):
        code, shown = answering(answer, "runs", "--remove", A)
        assert code == 0 and "nothing was deleted" in shown and two[0].exists()
    assert f"Delete {two[0]} (" in shown and f"with the weights {two[0] / 'final.pt'}, " in shown
    code, shown = answering("y\n", "runs", "--remove", A)
    assert code == 0 and f"deleted {two[0]}, " in shown and not two[0].exists() and two[1].exists()


def test_in_a_pipe_it_deletes_only_with_yes(run: Run, two: tuple[Path, Path]) -> None:
    for args in (("--remove", A), ("--prune",)):
        refused = run("runs", *args, input="y\n")
        assert (refused.returncode, "add --yes" in refused.stderr) == (2, True)
        assert (two[0] / "checkpoints" / "step-00000004").exists()
    pruned = run("runs", "--prune", "--yes", "--json")
    assert pruned.returncode == 0 and f"deleted the checkpoints of {A}, 10 bytes" in pruned.stderr
    assert [json.loads(line)["run"] for line in pruned.stdout.splitlines()] == [A]
    assert not (two[0] / "checkpoints").exists() and (two[0] / "best.pt").exists()
    removed = run("runs", "--remove", A, "--remove", str(two[1]), "--yes")
    assert removed.returncode == 0 and not two[0].exists() and not two[1].exists()


def test_nothing_is_deleted_if_one_name_is_wrong(run: Run, two: tuple[Path, Path]) -> None:
    refused = run("runs", "--remove", B, "--remove", A[:-1], "--yes")
    assert (refused.returncode, f"did you mean {A}?" in refused.stderr) == (2, True)
    assert two[1].exists()
    for args in (("--remove", A, "--prune"), ("--yes",)):
        assert run("runs", *args).returncode == 2
    assert two[0].exists()


def test_a_run_that_is_running_is_not_deleted(run: Run, two: tuple[Path, Path]) -> None:
    from gpt2cli.training.run_directory import RunDirectory

    with RunDirectory(two[1]):
        refused = run("runs", "--remove", B, "--yes")
    assert (refused.returncode, "is running: stop it first" in refused.stderr) == (2, True)
    assert two[1].exists()


def test_control_characters_in_names_are_spelled_out(home: Path) -> None:
    make_run(home / "runs" / "20260101-000000-\x1b[31mred")
    assert "\x1b[31mred" not in screen("runs", NO_COLOR="1")
