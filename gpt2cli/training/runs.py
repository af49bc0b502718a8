"""Finds the directories of runs, and reads their `config.json` and `summary.json`."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

from gpt2cli import paths, untrusted
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.training.stored_json import read_object


def runs() -> Path:
    """The directory of all runs without `--run-dir`."""
    return paths.home() / "runs"


def new_run_path(label: str) -> Path:
    """An unused path, `<home>/runs/<date>-<time>-<label>`. Creates nothing."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("-.") or "run"
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{slug[:40]}"
    path, number = runs() / name, 1
    while path.exists():
        number += 1
        path = runs() / f"{name}-{number}"
    return path


def newest_run() -> Path | None:
    """The last started of the runs in `<home>/runs` that are not done; None if all are done."""
    found = (config.parent for config in runs().glob("*/config.json"))
    return max((run for run in found if not is_done(run)), key=lambda run: run.name, default=None)


def any_run() -> bool:
    """Whether `<home>/runs` has a run."""
    return any(runs().glob("*/config.json"))


def check_any_run() -> None:
    """Raise UsageError if `<home>/runs` has no run."""
    if not any_run():
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


def wrote(run: Path, out: Path) -> bool:
    """Whether a run is done and its weights are in this file."""
    written = read_summary(run).get("out", str(out))
    return is_done(run) and written == str(out) and untrusted.is_file(out)


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
        raise CheckpointError(f"{run} holds no run: it has no config.json")
    try:
        return read_object(file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{file} cannot be read ({reason}): the run cannot be resumed") from None
