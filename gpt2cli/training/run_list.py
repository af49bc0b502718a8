"""The runs in the data directory: what each did, and how large it is. Needs no torch."""

import math
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gpt2cli import untrusted
from gpt2cli.errors import CheckpointError
from gpt2cli.published import DEFAULT_MODEL
from gpt2cli.training.run_lock import is_locked
from gpt2cli.training.runs import FAILED, all_runs, is_done, read_config, read_summary

DONE, STOPPED, INTERRUPTED, RUNNING, DAMAGED = "done", "stopped early", "interrupted", "running", "damaged"
"""The states of a run. `FAILED` is another one: its numbers were no longer finite."""
WEIGHTS = ("final.pt", "best.pt", "best-adapter", "adapter")
"""Weights in the directory of a run that are useful without it."""
MAX_METRICS = 2**27
"""Bytes of the largest `metrics.jsonl` that is read: a million steps."""
_STARTED = "%Y%m%d-%H%M%S"
"""The beginning of the names of runs, as `runs.new_run_path` makes them."""


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """A run on disk.

    data           the path or name of its data
    model          the name or path of the model that it started from; "new" for a new model
    started_at     ISO 8601, with the local time zone
    total_steps    None if no step was taken yet
    best_val_loss  None if the run had no evaluation yet
    bytes          the total size of its files, without those outside of its directory
    state          one of the states above
    out            the file with its final weights; None if it is not done
    """

    path: Path
    data: str
    model: str
    started_at: str
    steps: int
    total_steps: int | None
    best_val_loss: float | None
    bytes: int
    state: str
    out: str | None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def is_done(self) -> bool:
        return self.state in (DONE, STOPPED)

    @property
    def state_bytes(self) -> int:
        """The total size of its checkpoints."""
        return size_of(self.path / "checkpoints")

    @property
    def weights(self) -> list[str]:
        """The names of the weights in its directory."""
        return [name for name in WEIGHTS if (self.path / name).exists()]


@dataclass
class _Metrics:
    """The figures in a `metrics.jsonl`."""

    steps: int = 0
    steps_per_epoch: int | None = None
    best_val_loss: float | None = None


def list_runs() -> list[RunInfo]:
    """The runs in the data directory, the newest first."""
    return sorted(map(describe_run, all_runs()), key=lambda run: (run.started_at, run.name), reverse=True)


def describe_run(run: Path) -> RunInfo:
    """What the files of a run say about it."""
    try:
        config: dict[str, Any] | None = read_config(run)
    except CheckpointError:
        config = None
    train = _table(config, "train")
    summary, metrics = read_summary(run), _read_metrics(run / "metrics.jsonl")
    out = summary.get("out") if is_done(run) else None
    return RunInfo(
        path=run,
        data=_text(config, "data") or "alpaca",
        model="new"
        if _table(config, "from_scratch")
        else _text(config, "ckpt") or _text(config, "model") or DEFAULT_MODEL,
        started_at=_started(run).isoformat(timespec="seconds"),
        steps=metrics.steps,
        total_steps=_total(train, metrics),
        best_val_loss=metrics.best_val_loss,
        bytes=size_of(run),
        state=_state(run, config, summary),
        out=out if isinstance(out, str) else None,
    )


def size_of(path: Path) -> int:
    """The total size in bytes of a file, or of all files in a directory. Links count as links."""
    try:
        if path.is_symlink() or not path.is_dir():
            return path.lstat().st_size
        return sum(size_of(entry) for entry in path.iterdir())
    except OSError:  # it is not there, or was deleted meanwhile
        return 0


def _state(run: Path, config: dict[str, Any] | None, summary: dict[str, Any]) -> str:
    if is_locked(run):
        return RUNNING
    if config is None:
        return DAMAGED
    if is_done(run):
        return STOPPED if summary.get("reason") == "patience" else DONE
    return FAILED if summary.get("reason") == FAILED else INTERRUPTED


def _started(run: Path) -> datetime:
    """When a run began: its name says it, unless the user chose the name."""
    with suppress(ValueError, OverflowError):  # the years 1 and 9999 can be too near to the limit
        return datetime.strptime(run.name[:15], _STARTED).astimezone()  # in local time, as all here
    with suppress(OSError, ValueError, OverflowError):
        return datetime.fromtimestamp((run / "config.json").stat().st_mtime).astimezone()
    return datetime.fromtimestamp(0).astimezone()


def _read_metrics(file: Path) -> _Metrics:
    """The figures in a `metrics.jsonl`, which is untrusted. Unreadable lines count for nothing."""
    found, last = _Metrics(), b""
    try:
        if not untrusted.is_file(file) or file.stat().st_size > MAX_METRICS:
            return found
        with file.open("rb") as lines:
            for line in untrusted.whole_lines(lines):
                if b'"eval"' in line:
                    loss = _number(_parsed(line).get("val_loss"))
                    if loss is not None:
                        found.best_val_loss = loss if found.best_val_loss is None else min(loss, found.best_val_loss)
                elif b'"step"' in line:
                    last = line
    except OSError:
        return found
    fields = _parsed(last)
    step, epoch = fields.get("step"), _number(fields.get("epoch"))
    if type(step) is int and 0 < step <= MAX_METRICS:  # a line for each step
        found.steps = step
        found.steps_per_epoch = round(step / epoch) if epoch and epoch > 1e-9 else None
    return found


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        fields = untrusted.parse_json(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _total(train: dict[str, Any], metrics: _Metrics) -> int | None:
    """The steps of the whole run, from its settings and the length of an epoch."""
    most, epochs = train.get("max_steps"), train.get("epochs")
    if type(most) is int:
        return most
    return epochs * metrics.steps_per_epoch if type(epochs) is int and metrics.steps_per_epoch else None


def _number(value: Any) -> float | None:
    with suppress(OverflowError):  # an integer with hundreds of digits
        return float(value) if type(value) in (int, float) and math.isfinite(value) else None
    return None


def _table(config: dict[str, Any] | None, name: str) -> dict[str, Any]:
    found = (config or {}).get(name)
    return found if isinstance(found, dict) else {}


def _text(config: dict[str, Any] | None, name: str) -> str | None:
    found = (config or {}).get(name)
    return found if isinstance(found, str) else None
