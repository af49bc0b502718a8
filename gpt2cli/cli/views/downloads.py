"""Showing on stderr how a download goes: a bar on a terminal, now and then a line elsewhere, nothing if quiet."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress as bars
from rich.filesize import decimal

from gpt2cli.cli.describe import counted
from gpt2cli.cli.terminal import Console
from gpt2cli.progress import Note, Progress, Received, ignore

SECONDS_BETWEEN_LINES = 10.0
WIDE = 70
"""Columns that a terminal needs for all that there is to say in one line."""


@contextmanager
def showing_downloads(console: Console) -> Iterator[Progress]:
    """What to give as `progress` to `checkpoints.hub`. Shows nothing at all if nothing is downloaded."""
    if console.quiet:
        yield ignore
    elif console.animates:
        bar = _Bar(console)
        try:
            yield bar
        finally:
            bar.stop()
    else:
        lines = _Lines(console)
        yield lines
        lines.summarize()


class _Bar:
    """One bar for all files of a model."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._files: dict[str, Received] = {}
        columns: list[bars.ProgressColumn] = [bars.TextColumn("{task.description}"), bars.BarColumn(None)]
        if console.err.width >= WIDE:
            columns += [bars.DownloadColumn(), bars.TransferSpeedColumn(), bars.TimeRemainingColumn()]
        else:
            columns.append(bars.TaskProgressColumn())
        self._display = bars.Progress(*columns, console=console.err)
        self._task = self._display.add_task("downloading", total=None)

    def __call__(self, event: Received | Note) -> None:
        if isinstance(event, Note):
            self._console.note(event.text)
            return
        if not self._files:
            self._display.start()
        announced = event.file not in self._files
        self._files[event.file] = event
        done = sum(file.done for file in self._files.values())
        if announced:  # begins anew from what an earlier run left, which would otherwise count as speed
            self._display.reset(self._task, total=sum(file.total for file in self._files.values()), completed=done)
        else:
            self._display.update(self._task, completed=done)

    def stop(self) -> None:
        if self._files:
            self._display.stop()


class _Lines:
    """A line every ten seconds at most, and one at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = self._last_line = time.monotonic()
        self._done: dict[str, int] = {}
        self._transferred = 0

    def __call__(self, event: Received | Note) -> None:
        if isinstance(event, Note):
            self._console.note(event.text)
            return
        before = self._done.get(event.file, event.done)  # what an earlier run left did not come now
        self._transferred += max(0, event.done - before)
        self._done[event.file] = event.done
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            percent = 100 * event.done // max(event.total, 1)
            self._console.note(f"{event.file}: {decimal(event.done)} of {decimal(event.total)} ({percent} %)")

    def summarize(self) -> None:
        if self._done:
            files, size = counted(len(self._done), "file"), decimal(self._transferred)
            self._console.note(f"downloaded {files}, {size}, in {time.monotonic() - self._start:.1f} s")
