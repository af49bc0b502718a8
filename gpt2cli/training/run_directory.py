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
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from gpt2cli import atomic, outputs, untrusted
from gpt2cli.checkpoints.save import disk_errors
from gpt2cli.errors import ResourceError, UsageError
from gpt2cli.training import run_checkpoints
from gpt2cli.training.events import Evaluated, Event, Finished, Sampled, Started, Step
from gpt2cli.training.metrics_file import as_line, lines_up_to
from gpt2cli.training.plots import plot_losses
from gpt2cli.training.runs import is_done, read_summary
from gpt2cli.training.samples_file import as_markdown, sections_up_to

SECONDS_BETWEEN_PLOTS = 60.0
WRITTEN = ("config.json", "summary.json", "loss.png", "metrics.jsonl", "samples.md")
"""Files that may be replaced as a whole."""
APPENDED = ("metrics.jsonl", "samples.md")


def no_note(text: str) -> None:
    """Default for `note`: discard the text."""


class RunDirectory:
    """Writes a run's events into its directory, which it makes, and holds for itself until it is closed.

    `note` gets problems that do no harm to the run, such as a plot that could not be drawn. `took_steps` says whether
    the run has taken a step since the directory was opened. A directory in which no run began is removed.

    Raises ResourceError if another process works there or it cannot be written to, and UsageError if it is a file or
    its name is not UTF-8.
    """

    def __init__(self, path: Path, note: Callable[[str], None] = no_note) -> None:
        self.path = path
        self._note = note
        self._plots = True
        self._last_plot = time.monotonic()
        self.took_steps = False
        if untrusted.is_file(path):
            raise UsageError(f"{path} is a file: let --run-dir name a directory")
        outputs.check_unicode(path)
        for directory in (path, self.checkpoints):
            outputs.check_directory(directory)
        self._check_files()
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
        try:
            self._write_pid()
        except ResourceError:
            self.close()
            raise

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def write_config(self, settings: Mapping[str, Any]) -> None:
        """Write the run's settings."""
        self._replace("config.json", as_json(settings))

    def write_out(self, out: Path) -> None:
        """Write into the summary where the final weights are. Only then is the run done."""
        summary = read_summary(self.path)
        if "out" in summary and summary["out"] != str(out):
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
            case Finished() if self.took_steps or not is_done(self.path):  # the summary of a done run stays
                self._replace("summary.json", as_json(asdict(event) | {"out": None}))
                self._plot()

    def close(self) -> None:
        """Release the directory to other processes."""
        if self._lock.is_locked:
            with suppress(OSError):  # there may be another error on its way
                (self.path / ".pid").unlink(missing_ok=True)
            began = (self.path / "config.json").exists()
            if not began:
                with suppress(OSError):  # Windows deletes no open file: the release does it there
                    (self.path / ".lock").unlink(missing_ok=True)
            self._lock.release()
            if not began:
                with suppress(OSError):  # what else is in there is somebody's
                    self.path.rmdir()

    def _check_files(self) -> None:
        """Raise ResourceError if something else than a file has the name of one, before hours of training."""
        for name in ("config.json", "summary.json", *APPENDED):
            file = self.path / name
            in_the_way = untrusted.is_directory(file)
            if name in APPENDED:  # a pipe, for one, has no end to go on from
                in_the_way = os.path.lexists(file) and not untrusted.is_file(file)
            if in_the_way:
                raise ResourceError(f"cannot write {file}: it is no regular file: move it away")

    def _take_lock(self) -> FileLock:
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ResourceError(
                f"{self.path} is locked by {_named(self.path / '.pid')}: "
                "wait for that run to end, or choose another --run-dir"
            ) from None
        return lock

    def _write_pid(self) -> None:
        """Write this process's id, not into the lock file: each process that tries the lock empties that file."""
        pid = self.path / ".pid"
        with disk_errors(pid):
            pid.unlink(missing_ok=True)  # it may be a link or a pipe
            pid.write_text(f"{os.getpid()}\n")

    def _sweep(self) -> None:
        """Delete unfinished files and checkpoints of killed processes. The lock keeps all other processes away."""
        with disk_errors(self.path):
            for name in WRITTEN:
                atomic.sweep(self.path / name)
        run_checkpoints.sweep(self.checkpoints)

    def _rewind(self, step: int) -> None:
        """Remove what was written after this step, by a run that was killed before its next checkpoint."""
        for name, up_to in (("metrics.jsonl", lines_up_to), ("samples.md", sections_up_to)):
            file = self.path / name
            if untrusted.is_file(file):
                with disk_errors(file), file.open("rb") as old:
                    # step 0 is evaluated once more, so nothing stays
                    size = sum(map(len, up_to(old, step))) if step else 0
                    if size < file.stat().st_size:
                        old.seek(0)
                        with atomic.replacing(file) as temporary, temporary.open("wb") as new:
                            new.writelines(up_to(old, step) if step else ())

    def _append(self, name: str, text: str) -> None:
        # closed each time: what was written is in the file, whatever ends the process
        path = self.path / name
        with disk_errors(path), path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)

    def _replace(self, name: str, text: str) -> None:
        """Write a whole file, unless it has this content already."""
        path, content = self.path / name, text.encode()
        with disk_errors(path):
            is_same = untrusted.is_file(path) and path.stat().st_size == len(content) and path.read_bytes() == content
            if not is_same:
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
    """The process that holds the lock, as its file names it."""
    with suppress(OSError, ValueError):
        return f"pid {int(pid.read_bytes()[:20])}"
    return "another run"
