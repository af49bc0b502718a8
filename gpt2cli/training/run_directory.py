"""The directory of a training run.

config.json     the settings
metrics.jsonl   a line for each step and each evaluation
samples.md      the answers to the sample prompts
loss.png        a plot of the losses
summary.json    the last losses, how the run ended, and where its weights are
checkpoints/    see run_checkpoints.py; deleted when the run is done, unless --keep-states
best.pt, best-adapter/, adapter/, base.safetensors, final.pt    see weights_writer.py
.lock, .pid     only one process at a time may write here: see run_lock.py
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from gpt2cli import atomic, outputs, untrusted
from gpt2cli.checkpoints.save import disk_errors
from gpt2cli.errors import DivergedError, ResourceError, UsageError
from gpt2cli.training import checkpoint_directories
from gpt2cli.training.appended_files import as_line, as_markdown, lines_up_to, sections_up_to
from gpt2cli.training.events import Evaluated, Event, Finished, Sampled, Started, Step
from gpt2cli.training.plots import plot_losses
from gpt2cli.training.run_lock import LOCK, PID, take_lock
from gpt2cli.training.runs import FAILED, is_done, read_summary

SECONDS_BETWEEN_PLOTS = 60.0
WRITTEN = ("config.json", "summary.json", "loss.png", "metrics.jsonl", "samples.md")
"""Files that are replaced as a whole; the last two only when a run is resumed."""
APPENDED = ("metrics.jsonl", "samples.md")


class RunDirectory(AbstractContextManager["RunDirectory"]):
    """Makes the directory, locks it until it is closed, and writes the events of the run into its files.

    `note` receives problems that do not harm the run, such as a plot that could not be drawn. `took_steps` says
    whether the run has taken a step since the directory was opened. `close` removes a directory without a run.

    Raises ResourceError if another process has the lock or nothing can be written there, and UsageError if the path is
    a file or its name is not UTF-8.
    """

    def __init__(self, path: Path, note: Callable[[str], None] = lambda text: None) -> None:
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
            self._lock = take_lock(path, "wait for that run to end, or choose another --run-dir")
        try:
            self._write_pid()
        except ResourceError:
            self.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(error, DivergedError) and (self.path / "config.json").exists():
            with suppress(ResourceError):  # it must not replace the error that is being raised
                self._replace("summary.json", {"reason": FAILED, "problem": str(error), "out": None})
        self.close()

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def write_config(self, settings: Mapping[str, Any]) -> None:
        """Write the run's settings."""
        self._replace("config.json", settings)

    def write_out(self, out: Path, best: Path | None = None) -> None:
        """Write into the summary where the final weights are. This marks the run as done.

        best  the file with the weights of the lowest validation loss; None if there is no such file
        """
        where = {"out": str(out), "best_weights": None if best is None else str(best)}
        summary = read_summary(self.path)
        if "out" in summary and any(summary.get(name) != place for name, place in where.items()):
            self._replace("summary.json", summary | where)

    def reopen(self) -> None:
        """Mark a run that was done as interrupted: it goes on, and a killed process must be able to resume it."""
        if is_done(self.path):
            changed = {"reason": "interrupted", "out": None, "best_weights": None}
            self._replace("summary.json", read_summary(self.path) | changed)

    def handle(self, event: Event) -> None:
        """Write one event. Raises ResourceError if that fails."""
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
            case Finished() if self.took_steps or not is_done(self.path):  # a done run keeps its summary
                self._replace("summary.json", asdict(event) | {"out": None, "best_weights": None})
                self._plot()

    def close(self) -> None:
        """Release the lock."""
        if self._lock.is_locked:
            with suppress(OSError):  # must not replace an error that is being raised
                (self.path / PID).unlink(missing_ok=True)
            began = (self.path / "config.json").exists()
            if not began:
                with suppress(OSError):  # Windows cannot delete an open file; release() deletes it there
                    (self.path / LOCK).unlink(missing_ok=True)
            self._lock.release()
            if not began:
                with suppress(OSError):  # other files in it are not ours
                    self.path.rmdir()

    def _check_files(self) -> None:
        """Raise ResourceError, before hours of training, if a file's name belongs to something else."""
        for name in ("config.json", "summary.json", *APPENDED):
            file = self.path / name
            in_the_way = untrusted.is_directory(file)
            if name in APPENDED:  # appending needs a regular file, not a pipe
                in_the_way = os.path.lexists(file) and not untrusted.is_file(file)
            if in_the_way:
                raise ResourceError(f"cannot write {file}: it is not a regular file: move it away")

    def _write_pid(self) -> None:
        """Write this process's id. The lock file cannot hold it: each process that tries the lock empties that file."""
        pid = self.path / PID
        with disk_errors(pid):
            pid.unlink(missing_ok=True)  # it may be a link or a pipe
            pid.write_text(f"{os.getpid()}\n")

    def _sweep(self) -> None:
        """Delete unfinished files and checkpoints of killed processes. The lock excludes running ones."""
        with disk_errors(self.path):
            for name in WRITTEN:
                atomic.sweep(self.path / name)
        checkpoint_directories.sweep(self.checkpoints)

    def _rewind(self, step: int) -> None:
        """Cut the appended files back to this step: a killed process may have written more after its checkpoint."""
        for name, up_to in (("metrics.jsonl", lines_up_to), ("samples.md", sections_up_to)):
            file = self.path / name
            if untrusted.is_file(file):
                with disk_errors(file), file.open("rb") as old:
                    # at step 0, the run evaluates again, so nothing is kept
                    size = sum(map(len, up_to(old, step))) if step else 0
                    if size < file.stat().st_size:
                        old.seek(0)
                        with atomic.replacing(file) as temporary, temporary.open("wb") as new:
                            new.writelines(up_to(old, step) if step else ())

    def _append(self, name: str, text: str) -> None:
        # closed each time, so that nothing is lost if the process is killed
        path = self.path / name
        with disk_errors(path), path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)

    def _replace(self, name: str, fields: Mapping[str, Any]) -> None:
        """Write a JSON file, unless it has this content already."""
        path, text = self.path / name, json.dumps(fields, indent=2, ensure_ascii=False, default=str) + "\n"
        # a lone surrogate, which names of files can contain, becomes its JSON escape
        content = text.encode(errors="backslashreplace")
        with disk_errors(path):
            if not untrusted.is_file(path) or untrusted.read_at_most(path, len(content)) != content:
                atomic.write_text(path, content.decode())

    def _plot(self) -> None:
        if self._plots and (problem := plot_losses(self.path / "metrics.jsonl", self.path / "loss.png")):
            self._plots = False
            self._note(problem)
        self._last_plot = time.monotonic()
