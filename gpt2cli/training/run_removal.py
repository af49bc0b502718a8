"""Deletes the directories of runs, or only the checkpoints in them. Needs no torch."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpt2cli import atomic, untrusted
from gpt2cli.errors import CheckpointError, ResourceError, UsageError
from gpt2cli.training.checkpoint_directories import checkpoints, delete_checkpoints, other_files
from gpt2cli.training.run_list import WEIGHTS, RunInfo, describe_run
from gpt2cli.training.run_lock import LOCK, PID, take_lock
from gpt2cli.training.runs import find_run, is_done, named_like, read_config

OF_A_RUN = (
    *("checkpoints", "wandb", *WEIGHTS, "base.safetensors", "samples.md", "loss.png", "metrics.jsonl"),
    *("summary.json", "config.json", PID, LOCK),
)
"""The files and directories that a run writes, in the order in which they are deleted.

Until `config.json` is deleted, `gpt2 runs` lists the run.
"""
_LEFT = re.compile(rf"\.({'|'.join(map(re.escape, OF_A_RUN))})\.{atomic.RANDOM}{re.escape(atomic.SUFFIX)}")
"""The names of unfinished files that killed processes left."""


def find_runs(names: list[str]) -> list[RunInfo]:
    """The runs with these names or paths. Raises UsageError for one that is not a run, or holds other files as well."""
    found = {}
    for name in names:
        run = find_run(name)
        if run.is_symlink():
            raise UsageError(f"{run} is a link: name the directory that it leads to")
        if not untrusted.is_directory(run):
            raise UsageError(f"there is no run named {name}: {named_like(run)}")
        try:
            is_run = {"train", "records"} <= set(read_config(run))
        except CheckpointError:
            is_run = False
        if not is_run:  # a config.json alone is also in the directory of a model
            raise UsageError(f"{run} has no config.json of `gpt2 finetune`: it is not deleted")
        run = run.resolve()  # the name "." cannot be deleted
        with _disk_errors(run):
            others = [path.name for path in run.iterdir() if not _is_of_a_run(path.name)]
            others += [f"checkpoints/{path.name}" for path in other_files(run / "checkpoints")]
        if others:
            raise UsageError(
                f"{run} also holds {min(others)}, which no run wrote: move it away, or delete the rest yourself"
            )
        found[run] = describe_run(run)
    return list(found.values())


def remove_run(run: RunInfo) -> None:
    """Delete a run. Raises ResourceError if a process works on it, or a file cannot be deleted."""
    with _locked(run.path):
        for name in OF_A_RUN[: OF_A_RUN.index(PID)]:
            _delete(run.path / name)
    with _disk_errors(run.path):
        for path in run.path.iterdir():
            if _is_of_a_run(path.name):
                _delete(path)
        run.path.rmdir()


def prune_run(run: RunInfo) -> None:
    """Delete the checkpoints of a run that is done. Raises ResourceError as `remove_run`."""
    with _locked(run.path):
        if is_done(run.path):
            states = run.path / "checkpoints"
            delete_checkpoints(states)
            if checkpoints(states):
                raise ResourceError(f"cannot delete all checkpoints in {states}: delete it yourself")


def _is_of_a_run(name: str) -> bool:
    return name in OF_A_RUN or bool(_LEFT.fullmatch(name))


@contextmanager
def _locked(run: Path) -> Iterator[None]:
    """Hold the lock of a run, so that no process works on it. Raises ResourceError if one does."""
    with _disk_errors(run):
        lock = take_lock(run, "stop it first (Ctrl-C saves it), or wait for its end")
    try:
        yield
    finally:
        lock.release()


def _delete(path: Path) -> None:
    """Delete a file, a link, or a directory with all that is in it, if it exists. Follows no links."""
    with _disk_errors(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a ResourceError that names the file."""
    try:
        yield
    except OSError as error:
        raise ResourceError(f"cannot delete {path} ({error.strerror or error}): delete it yourself") from None
