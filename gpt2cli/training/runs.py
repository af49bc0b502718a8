"""Finds the directories of runs, and reads their `config.json` and `summary.json`."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

from gpt2cli import paths, untrusted
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.suggestions import did_you_mean
from gpt2cli.training.stored_json import read_object

FAILED = "failed"
"""The reason in the summary of a run whose numbers were no longer finite. The same steps would fail again."""


def new_run_path(label: str) -> Path:
    """An unused path, `<home>/runs/<date>-<time>-<label>`. Creates nothing."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("-.") or "run"
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{slug[:40]}"
    path, number = paths.runs() / name, 1
    while path.exists():
        number += 1
        path = paths.runs() / f"{name}-{number}"
    return path


def all_runs() -> list[Path]:
    """The directories of the runs in `<home>/runs`, in no order."""
    return [config.parent for config in paths.runs().glob("*/config.json")]


def newest_run() -> Path | None:
    """The last started of the runs in `<home>/runs` that can be continued: not done, and not failed."""
    unfinished = (run for run in all_runs() if not is_done(run) and read_summary(run).get("reason") != FAILED)
    return max(unfinished, key=lambda run: run.name, default=None)


def find_run(name: str | Path) -> Path:
    """The directory that a path names, or else the run of this name in `<home>/runs`. It may not exist.

    Raises UsageError as `paths.expand`.
    """
    path = paths.expand(name)
    is_plain = Path(name).name == str(name) and str(name) != ".."
    return paths.runs() / name if is_plain and not path.exists() else path


def named_like(run: Path) -> str:
    """The end of an error about a run that does not exist: the run of a similar name, or how to list all."""
    return did_you_mean(run.name, [each.name for each in all_runs()]) or "`gpt2 runs` lists the runs"


def check_any_run() -> None:
    """Raise UsageError if `<home>/runs` has no run."""
    if not all_runs():
        raise UsageError("there is no run to resume: name one, as in `gpt2 finetune --resume RUN`")


def check_new_run(path: Path) -> None:
    """Raise UsageError if a directory for a new run holds a run already."""
    if (path / "config.json").exists():
        raise UsageError(f"{path} holds a run already: add --resume to continue it, or choose another --run-dir")


def check_run(path: Path) -> None:
    """Raise CheckpointError if `path` is neither a run nor a directory in its `checkpoints/`."""
    if not untrusted.is_file(path.absolute().parent.parent / "config.json"):
        read_config(path)


def is_done(run: Path) -> bool:
    """Whether a run ended by itself and its weights were written."""
    summary = read_summary(run)
    # summaries of version 0.1 have no `out`
    return summary.get("reason") in ("done", "patience") and summary.get("out", "") is not None


def read_summary(run: Path) -> dict[str, Any]:
    """The content of `summary.json`; empty if the run has not ended or the file cannot be read."""
    try:
        return read_object(run / "summary.json")
    except (OSError, ValueError):
        return {}


def read_config(run: Path) -> dict[str, Any]:
    """The content of `config.json`. Raises CheckpointError if it cannot be read."""
    file = run / "config.json"
    if not untrusted.is_file(file):
        raise CheckpointError(f"{run} holds no run: it has no config.json; {named_like(run)}")
    try:
        return read_object(file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{file} cannot be read ({reason}): the run cannot be resumed") from None
