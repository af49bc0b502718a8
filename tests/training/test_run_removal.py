"""Deleting runs: all of a run, and nothing else."""

import os
from pathlib import Path

import pytest

from gpt2cli.errors import ResourceError, UsageError
from gpt2cli.training.run_directory import RunDirectory
from gpt2cli.training.run_removal import find_runs, prune_run, remove_run
from tests.training.test_run_list import make_run


def with_weights(run: Path) -> Path:
    """The run with everything that a run can write."""
    for name in ("checkpoints/step-00000004/weights.safetensors", "checkpoints/.step-00000005.tmp/x"):
        (run / name).parent.mkdir(parents=True)
        (run / name).write_bytes(b"state")
    for name in ("adapter", "best-adapter", "wandb"):
        (run / name).mkdir()
        (run / name / "file").touch()
    for name in ("best.pt", "final.pt", "base.safetensors", "samples.md", "loss.png", ".config.json.01234567.tmp"):
        (run / name).write_bytes(b"weights")
    return run


def test_a_run_is_removed_by_its_name_or_its_path(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named, relative = make_run(home / "runs" / "20260101-000000-a"), make_run(tmp_path / "mine")
    with_weights(named)
    found = find_runs([named.name, "mine", str(relative)])
    assert [run.path.name for run in found] == [named.name, "mine"]  # each once
    assert found[0].weights == ["final.pt", "best.pt", "best-adapter", "adapter"]
    for run in found:
        remove_run(run)
    assert not named.exists() and not relative.exists()
    assert (home / "runs").is_dir()


def test_what_is_no_run_is_not_deleted(home: Path, tmp_path: Path) -> None:
    run = make_run(home / "runs" / "20260101-000000-records")
    with pytest.raises(UsageError, match="did you mean 20260101-000000-records"):
        find_runs(["20260101-000000-record"])
    with pytest.raises(UsageError, match="`gpt2 runs` lists the runs"):
        find_runs([str(tmp_path / "nowhere")])
    model = tmp_path / "model"
    model.mkdir()
    for content in (None, '{"model_type": "gpt2"}', "["):
        if content:
            (model / "config.json").write_text(content)
        with pytest.raises(UsageError, match=r"has no config\.json of `gpt2 finetune`"):
            find_runs([str(model)])
    (run / "checkpoints").mkdir()
    for name in ("model.py", "checkpoints.txt", ".config.json.tmp", "checkpoints/mine.pt"):
        (run / name).touch()
        with pytest.raises(UsageError, match=f"also holds {name}, which no run wrote"):
            find_runs([run.name])
        (run / name).unlink()
    assert find_runs([run.name])


def test_a_run_in_the_working_directory_is_removed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(home / "runs" / "a")
    monkeypatch.chdir(run)
    [found] = find_runs(["."])
    assert found.name == "a"
    remove_run(found)
    assert not run.exists()


def test_no_link_leads_out_of_the_directory(home: Path, tmp_path: Path) -> None:
    run, kept = make_run(home / "runs" / "a"), tmp_path / "kept"
    (kept / "step-00000001").mkdir(parents=True)
    (kept / "step-00000001" / "weights").touch()
    (run / "wandb").symlink_to(kept)
    (run / "best.pt").symlink_to(kept / "step-00000001" / "weights")
    (home / "runs" / "link").symlink_to(run)
    with pytest.raises(UsageError, match="is a link"):
        find_runs(["link"])
    [found] = find_runs(["a"])
    remove_run(found)
    assert not run.exists() and (kept / "step-00000001" / "weights").exists()


def test_a_running_run_is_neither_removed_nor_pruned(home: Path) -> None:
    run = with_weights(make_run(home / "runs" / "a"))
    [found] = find_runs(["a"])
    with RunDirectory(run):
        for delete in (remove_run, prune_run):
            with pytest.raises(ResourceError, match=f"is locked by pid {os.getpid()}: stop it first"):
                delete(found)
    assert (run / "best.pt").exists() and (run / "checkpoints" / "step-00000004").exists()


def test_pruning_deletes_only_the_checkpoints_of_a_run_that_is_done(home: Path) -> None:
    done = with_weights(make_run(home / "runs" / "a"))
    stopped = with_weights(make_run(home / "runs" / "b", reason="interrupted", out=None))
    found = find_runs(["a", "b"])
    (done / "checkpoints" / "notes.txt").touch()
    before = {path.name for path in done.iterdir()}
    for run in found:
        prune_run(run)
    assert {path.name for path in done.iterdir()} == before
    assert [path.name for path in (done / "checkpoints").iterdir()] == ["notes.txt"]
    assert (stopped / "checkpoints" / "step-00000004").exists()
    (done / "checkpoints" / "notes.txt").unlink()
    prune_run(find_runs(["a"])[0])
    assert not (done / "checkpoints").exists()


def test_checkpoints_that_cannot_be_deleted_are_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_weights(make_run(home / "runs" / "a"))
    monkeypatch.setattr("gpt2cli.training.checkpoint_directories.shutil.rmtree", lambda *_, **__: None)
    with pytest.raises(ResourceError, match="cannot delete all checkpoints"):
        prune_run(find_runs(["a"])[0])


def test_a_removal_that_was_killed_is_finished_by_the_next(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = with_weights(make_run(home / "runs" / "a"))
    [found] = find_runs(["a"])
    unlink, deleted = Path.unlink, []

    def killed(path: Path, missing_ok: bool = False) -> None:
        deleted.append(path)
        if len(deleted) == 3:
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "unlink", killed)
        remove_run(found)
    assert not (run / "checkpoints").exists()
    [found] = find_runs(["a"])
    remove_run(found)
    assert not run.exists()
