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

from gpt2cli import atomic, paths
from gpt2cli.errors import CheckpointError, ResourceError, UsageError
from gpt2cli.training.events import Evaluated, Event, Finished, Sampled, Started, Step
from gpt2cli.training.plots import plot_losses

SECONDS_BETWEEN_PLOTS = 60.0
_HEADING = re.compile(rb"^## Step (\d+)$", re.MULTILINE)
# C0 and C1 controls and DEL, as what they look like in a Python string
_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != ord("\t")}


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
    """The run under `<home>/runs` that was begun last, of those that are not done if there are any; None for none."""
    found = (config.parent for config in runs().glob("*/config.json"))
    return max(found, key=lambda run: (not is_done(run), run.name), default=None)


def is_done(run: Path) -> bool:
    """Whether a run has come to its end."""
    try:
        return bool(json.loads((run / "summary.json").read_bytes())["reason"] != "interrupted")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_config(run: Path) -> dict[str, Any]:
    """The settings that a run was begun with. Raises CheckpointError if there are none to read."""
    file = run / "config.json"
    try:
        settings = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{run} holds no run: it has no config.json") from None
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON ({error}): the run cannot be resumed") from None
    if not isinstance(settings, dict):
        raise CheckpointError(f"{file} holds no settings: the run cannot be resumed")
    return settings


def no_note(text: str) -> None:
    """Says it to nobody."""


class RunDirectory:
    """Writes a run's events into its directory, which it makes, and holds for itself until it is closed.

    `note` is told what went wrong without harm to the run, such as a plot that could not be drawn. A directory in
    which no run began goes again. Raises ResourceError if another process works there, UsageError if it is a file.
    """

    def __init__(self, path: Path, note: Callable[[str], None] = no_note) -> None:
        self.path = path
        self._note = note
        self._plots = True
        self._last_plot = time.monotonic()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UsageError(f"{path} is a file: let --run-dir name a directory") from None
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
        atomic.write_text(self.path / "config.json", as_json(settings))

    def handle(self, event: Event) -> None:
        """Write down one event of the run."""
        match event:
            case Started():
                self._rewind(event.step)
            case Step():
                self._append_metrics({"kind": "step"} | asdict(event))
            case Evaluated():
                fields = {"step": event.step, "tokens_seen": event.tokens_seen, "val_loss": event.val_loss}
                self._append_metrics({"kind": "eval"} | fields)
                if time.monotonic() - self._last_plot >= SECONDS_BETWEEN_PLOTS:
                    self._plot()
            case Sampled():
                self._append("samples.md", as_markdown(event))
            case Finished():
                atomic.write_text(self.path / "summary.json", as_json(asdict(event)))
                self._plot()

    def close(self) -> None:
        """Let other processes have the directory."""
        if self._lock.is_locked:
            (self.path / ".pid").unlink(missing_ok=True)
            if not (self.path / "config.json").exists():
                (self.path / ".lock").unlink(missing_ok=True)
                with suppress(OSError):  # what else is in there is somebody's
                    self.path.rmdir()
            self._lock.release()

    def _take_lock(self) -> FileLock:
        lock = FileLock(self.path / ".lock")
        # the process id is in a file of its own: whoever tries the lock empties the lock file
        pid = self.path / ".pid"
        try:
            lock.acquire(timeout=0)
        except Timeout:
            with suppress(OSError):
                raise ResourceError(
                    f"{self.path} is locked by pid {pid.read_text().strip() or '?'}: "
                    "wait for that run to end, or choose another --run-dir"
                ) from None
            raise ResourceError(f"{self.path} is locked by another run: choose another --run-dir") from None
        pid.write_text(f"{os.getpid()}\n")
        return lock

    def _rewind(self, step: int) -> None:
        """Cut off what was written after this step, by a run that was killed before its next checkpoint."""
        for name, find_end in (("metrics.jsonl", end_of_metrics), ("samples.md", end_of_samples)):
            with suppress(FileNotFoundError):
                file = self.path / name
                # step 0 is evaluated once more, so nothing stays
                os.truncate(file, find_end(file.read_bytes(), step) if step else 0)

    def _append_metrics(self, fields: dict[str, Any]) -> None:
        self._append("metrics.jsonl", json.dumps(fields) + "\n")

    def _append(self, name: str, text: str) -> None:
        # opened each time: what was written stays, whatever ends the process
        with (self.path / name).open("a", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)

    def _plot(self) -> None:
        if self._plots and (problem := plot_losses(self.path / "metrics.jsonl", self.path / "loss.png")):
            self._plots = False
            self._note(problem)
        self._last_plot = time.monotonic()


def as_json(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, indent=2, ensure_ascii=False, default=str) + "\n"


def as_markdown(event: Sampled) -> str:
    """The answers as a section of markdown, each text an indented block: none can look like a heading or end it."""
    parts = [f"## Step {event.step}\n"]
    for prompt, answer in event.answers:
        parts += ["Prompt:\n", indented(prompt), "Answer:\n", indented(answer)]
    return "\n".join(parts) + "\n"


def indented(text: str) -> str:
    lines = [line.translate(_VISIBLE) for line in text.splitlines()] or ["(nothing)"]
    return "".join(f"    {line}\n" for line in lines)


def end_of_metrics(content: bytes, step: int) -> int:
    """Where the lines up to this step end; a line that was torn ends them too."""
    end = 0
    for line in content.splitlines(keepends=True):
        try:
            if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                break
        except (ValueError, TypeError, KeyError):
            break
        end += len(line)
    return end


def end_of_samples(content: bytes, step: int) -> int:
    """Where the sections up to this step end."""
    later = (match.start() for match in _HEADING.finditer(content) if int(match[1]) > step)
    return next(later, len(content))
