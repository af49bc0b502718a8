"""The list of runs, from files that may be missing, damaged, or of a process that is working."""

import json
from pathlib import Path

import pytest

from gpt2cli.training.events import Evaluated
from gpt2cli.training.run_directory import RunDirectory
from gpt2cli.training.run_list import describe_run, list_runs, size_of
from gpt2cli.training.run_lock import is_locked
from tests.training.records import FINISHED, settings_from, started, step_event


def make_run(path: Path, *, reason: str | None = "done", out: str | None = "/x/out.pt", steps: int = 4) -> Path:
    """A run of four steps in each of three epochs. With `reason` None, it was killed before its end."""
    with RunDirectory(path) as run:
        run.write_config(settings_from("tiny", data="/x/records.json", out="/x/out.pt").as_dict())
        run.handle(started(0))
        run.handle(Evaluated(0, 0, 4.0, True))
        for number in range(1, steps + 1):
            run.handle(step_event(number))
        run.handle(Evaluated(steps, 100, 2.5, True))
        run.handle(Evaluated(steps, 100, 2.75, False))
        if reason:
            (path / "summary.json").write_text(json.dumps({"reason": reason, "out": out, "steps": FINISHED.steps}))
    return path


def test_the_newest_run_is_first_and_its_files_say_what_it_did(home: Path) -> None:
    for name in ("20260102-030405-new", "20250102-030405-old"):
        make_run(home / "runs" / name)
    (home / "runs" / "notes").mkdir()
    newest, oldest = list_runs()
    assert (newest.name, oldest.name) == ("20260102-030405-new", "20250102-030405-old")
    assert newest.started_at.startswith("2026-01-02T03:04:05")
    assert (newest.steps, newest.total_steps, newest.best_val_loss) == (4, 12, 2.5)
    assert (newest.data, newest.model, newest.state, newest.out) == ("/x/records.json", "tiny", "done", "/x/out.pt")
    files = [path for path in newest.path.rglob("*") if path.is_file()]
    assert newest.bytes == sum(path.stat().st_size for path in files)


@pytest.mark.parametrize(
    ("reason", "out", "state"),
    [
        ("done", "/x/out.pt", "done"),
        ("patience", "/x/out.pt", "stopped early"),
        ("done", None, "interrupted"),  # killed before the weights were written
        ("interrupted", None, "interrupted"),
        ("failed", None, "failed"),
        (None, None, "interrupted"),
    ],
)
def test_the_state_of_a_run(tmp_path: Path, reason: str | None, out: str | None, state: str) -> None:
    run = describe_run(make_run(tmp_path / "run", reason=reason, out=out))
    assert (run.state, run.out) == (state, out)


def test_a_run_that_a_process_works_on_is_running(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    assert describe_run(tmp_path / "run").state == "done"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == before
    with RunDirectory(tmp_path / "run"):
        assert is_locked(tmp_path / "run") and describe_run(tmp_path / "run").state == "running"
    (tmp_path / "run" / ".pid").write_text("1")  # of a killed process
    assert not is_locked(tmp_path / "run") and describe_run(tmp_path / "run").state == "done"


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, '{"train": 3, "data": 4, "model": [], "ckpt": {}}'])
def test_damaged_files_are_no_obstacle(tmp_path: Path, content: str) -> None:
    make_run(tmp_path / "run")
    for name in ("config.json", "summary.json"):
        (tmp_path / "run" / name).write_text(content)
    (tmp_path / "run" / "metrics.jsonl").write_text(f'{content}\n{{"kind": "eval", "val_loss": "x"}}\n"step"\n')
    run = describe_run(tmp_path / "run")
    assert (run.steps, run.total_steps, run.best_val_loss, run.model) == (0, None, None, "gpt2")
    assert run.state in ("damaged", "interrupted")


@pytest.mark.parametrize(
    "line",
    [
        '{"kind": "step", "step": 1%s, "epoch": 1.0}' % ("0" * 400),
        '{"kind": "step", "step": 7, "epoch": 1e-320}',
        '{"kind": "step", "step": 7, "epoch": 1%s}' % ("0" * 400),
        '{"kind": "eval", "step": 7, "val_loss": 1%s}' % ("0" * 400),
    ],
)
def test_figures_that_no_run_writes_are_no_obstacle(tmp_path: Path, line: str) -> None:
    with (make_run(tmp_path / "run") / "metrics.jsonl").open("a") as metrics:
        metrics.write(line + "\n")
    run = describe_run(tmp_path / "run")
    assert run.steps in (0, 4, 7)
    assert run.best_val_loss == 2.5


@pytest.mark.parametrize("name", ["00010101-000000-x", "99991231-235959-x"])
def test_a_name_with_an_extreme_year_is_no_obstacle(tmp_path: Path, name: str) -> None:
    assert describe_run(make_run(tmp_path / name)).started_at


def test_what_links_lead_to_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(10**6))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link").symlink_to(tmp_path / "large")
    (tmp_path / "run" / "loop").symlink_to(tmp_path / "run")
    assert size_of(tmp_path / "run") < 10**4
    assert size_of(tmp_path / "missing") == 0
