"""A training run's directory.

config.json     its settings
metrics.jsonl   its numbers: a line a step, a line an evaluation
samples.md      its answers to the fixed prompts
loss.png        its losses over steps
summary.json    how it ended
checkpoints/    the engine's
best.pt, best-adapter/, adapter/    see results.py
.lock, .pid     one process at a time works here
"""

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from gpt2cli import atomic, outputs, paths, untrusted
from gpt2cli.checkpoints.save import disk_errors
from gpt2cli.errors import CheckpointError, ResourceError, UsageError
from gpt2cli.training import state
from gpt2cli.training.events import Evaluated, Event, Finished, Sampled, Started, Step
from gpt2cli.training.metrics_file import as_line, lines_up_to
from gpt2cli.training.plots import plot_losses
from gpt2cli.training.samples_file import as_markdown, sections_up_to

SECONDS_BETWEEN_PLOTS = 60.0
WRITTEN = ("config.json", "summary.json", "loss.png", "metrics.jsonl", "samples.md")
"""Files that may be replaced as a whole."""


def runs() -> Path:
    """Where runs are kept unless a directory is named."""
    return paths.home() / "runs"


def new_run_path(label: str) -> Path:
    """A path that no run has yet: `<home>/runs/<date>-<time>-<label>`. Nothing is made there."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("-.") or "run"
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{slug[:40]}"
    path, number = runs() / name, 1
    while path.exists():
        number += 1
        path = runs() / f"{name}-{number}"
    return path


def newest_run() -> Path | None:
    """The run under `<home>/runs` that was begun last, of those that are not done; None if there is none."""
    found = (config.parent for config in runs().glob("*/config.json"))
    return max((run for run in found if not is_done(run)), key=lambda run: run.name, default=None)


def any_run() -> bool:
    """Whether there is a run under `<home>/runs`."""
    return any(runs().glob("*/config.json"))


def is_done(run: Path) -> bool:
    """Whether a run has come to its end, and its weights are written."""
    summary = read_summary(run)
    # version 0.1 did not say where the weights went
    return summary.get("reason") in ("done", "patience") and summary.get("out", "") is not None


def wrote(run: Path, out: Path) -> bool:
    """Whether a run is done, and its weights are in this file."""
    written = read_summary(run).get("out", str(out))
    return is_done(run) and written == str(out) and untrusted.is_file(out)


def read_summary(run: Path) -> dict[str, Any]:
    """How a run ended: empty if it has not, or if its summary cannot be read."""
    file = run / "summary.json"
    try:
        summary = untrusted.parse_json(file.read_bytes()) if untrusted.is_file(file) else {}
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def read_config(run: Path) -> dict[str, Any]:
    """The settings that a run was begun with. Raises CheckpointError if there are none to read."""
    file = run / "config.json"
    if not untrusted.is_file(file):
        raise CheckpointError(f"{run} holds no run: it has no config.json")
    try:
        settings = untrusted.parse_json(file.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror}): the run cannot be resumed") from None
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON ({error}): the run cannot be resumed") from None
    if not isinstance(settings, dict):
        raise CheckpointError(f"{file} holds no settings: the run cannot be resumed")
    return settings


def no_note(text: str) -> None:
    """Default for `note`: discard the text."""


class RunDirectory:
    """Writes a run's events into its directory, which it makes, and holds for itself until it is closed.

    `note` is told what went wrong without harm to the run, such as a plot that could not be drawn. `took_steps` is
    whether the run took a step since. A directory in which no run began is removed. Raises ResourceError if another
    process works there or it cannot be written to, UsageError if it is a file.
    """

    def __init__(self, path: Path, note: Callable[[str], None] = no_note) -> None:
        self.path = path
        self._note = note
        self._plots = True
        self._last_plot = time.monotonic()
        self.took_steps = False
        if untrusted.is_file(path):
            raise UsageError(f"{path} is a file: let --run-dir name a directory")
        for directory in (path, self.checkpoints):
            outputs.check_directory(directory)
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def write_config(self, settings: Mapping[str, Any]) -> None:
        """Put down the run's settings."""
        self._replace("config.json", as_json(settings))

    def write_out(self, out: Path) -> None:
        """Put down in the summary where the final weights are: not before that, the run is done."""
        summary = read_summary(self.path)
        if summary.get("out", "") != str(out) and "out" in summary:
            self._replace("summary.json", as_json(summary | {"out": str(out)}))

    def handle(self, event: Event) -> None:
        """Write down one event of the run. Raises ResourceError if it cannot be written."""
        match event:
            case Started():
                self._sweep()
                self._rewind(event.step)
            case Step():
                self.took_steps = True
                self._append("metrics.jsonl", as_line({"kind": "step"} | asdict(event)))
            case Evaluated():
                fields = {"step": event.step, "tokens_seen": event.tokens_seen, "val_loss": event.val_loss}
                self._append("metrics.jsonl", as_line({"kind": "eval"} | fields))
                if time.monotonic() - self._last_plot >= SECONDS_BETWEEN_PLOTS:
                    self._plot()
            case Sampled():
                self._append("samples.md", as_markdown(event))
            case Finished() if self.took_steps or not is_done(self.path):  # what is done is not written again
                self._replace("summary.json", as_json(asdict(event) | {"out": None}))
                self._plot()

    def close(self) -> None:
        """Let other processes have the directory."""
        if self._lock.is_locked:
            (self.path / ".pid").unlink(missing_ok=True)
            began = (self.path / "config.json").exists()
            if not began:
                with suppress(OSError):  # Windows deletes no open file: the release does it there
                    (self.path / ".lock").unlink(missing_ok=True)
            self._lock.release()
            if not began:
                with suppress(OSError):  # what else is in there is somebody's
                    self.path.rmdir()

    def _take_lock(self) -> FileLock:
        lock = FileLock(self.path / ".lock")
        # the process id is in a file of its own: whoever tries the lock empties the lock file
        pid = self.path / ".pid"
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ResourceError(
                f"{self.path} is locked by {_named(pid)}: wait for that run to end, or choose another --run-dir"
            ) from None
        pid.write_text(f"{os.getpid()}\n")
        return lock

    def _sweep(self) -> None:
        """Delete what killed processes left of files and checkpoints: whoever holds the lock is alone here."""
        with disk_errors(self.path):
            for name in WRITTEN:
                atomic.sweep(self.path / name)
        state.sweep(self.checkpoints)

    def _rewind(self, step: int) -> None:
        """Leave out what was written after this step, by a run that was killed before its next checkpoint."""
        for name, up_to in (("metrics.jsonl", lines_up_to), ("samples.md", sections_up_to)):
            file = self.path / name
            if untrusted.is_file(file):
                with disk_errors(file):
                    content = file.read_bytes()
                    # step 0 is evaluated once more, so nothing stays
                    kept = up_to(content, step) if step else b""
                    if kept == content:
                        continue
                    if content.startswith(kept):
                        os.truncate(file, len(kept))
                    else:
                        with atomic.replacing(file) as temporary:
                            temporary.write_bytes(kept)

    def _append(self, name: str, text: str) -> None:
        # opened each time: what was written stays, whatever ends the process
        path = self.path / name
        with disk_errors(path), path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)

    def _replace(self, name: str, text: str) -> None:
        """Write a file as a whole, unless it says this already."""
        path = self.path / name
        with disk_errors(path):
            if not (untrusted.is_file(path) and path.read_bytes() == text.encode()):
                atomic.write_text(path, text)

    def _plot(self) -> None:
        if self._plots and (problem := plot_losses(self.path / "metrics.jsonl", self.path / "loss.png")):
            self._plots = False
            self._note(problem)
        self._last_plot = time.monotonic()


def as_json(fields: Mapping[str, Any]) -> str:
    text = json.dumps(fields, indent=2, ensure_ascii=False, default=str) + "\n"
    # a lone surrogate, as names of files can hold, becomes JSON's escape for it
    return text.encode(errors="backslashreplace").decode()


def _named(pid: Path) -> str:
    """Who holds a lock, by what its file says."""
    with suppress(OSError, ValueError):
        return f"pid {int(pid.read_bytes()[:20])}"
    return "another run"
