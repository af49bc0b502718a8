"""Showing on stderr how a download goes: a bar on a terminal, now and then a line elsewhere, nothing if quiet."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress as bars
from rich.filesize import decimal

from gpt2cli.checkpoints.transfer import Note, Progress, Received, ignore
from gpt2cli.cli.console import Console

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def showing_downloads(console: Console) -> Iterator[Progress]:
    """What to give as `progress` to `checkpoints.hub`. Shows nothing at all if nothing is downloaded."""
    if console.quiet:
        yield ignore
    elif console.err.is_terminal:
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
    """A bar for each file."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: dict[str, bars.TaskID] = {}
        self._display = bars.Progress(
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(),
            bars.DownloadColumn(),
            bars.TransferSpeedColumn(),
            bars.TimeRemainingColumn(),
            console=console.err,
        )

    def __call__(self, event: Received | Note) -> None:
        if isinstance(event, Note):
            self._console.note(event.text)
            return
        if not self._tasks:
            self._display.start()
        if event.file not in self._tasks:
            # starts at what an earlier run left, which would otherwise count as speed
            self._tasks[event.file] = self._display.add_task(event.file, total=event.total, completed=event.done)
        self._display.update(self._tasks[event.file], completed=event.done)

    def stop(self) -> None:
        if self._tasks:
            self._display.stop()


class _Lines:
    """A line every ten seconds at most, and one at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = self._last_line = time.monotonic()
        self._sizes: dict[str, int] = {}

    def __call__(self, event: Received | Note) -> None:
        if isinstance(event, Note):
            self._console.note(event.text)
            return
        self._sizes[event.file] = event.total
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            percent = 100 * event.done // max(event.total, 1)
            self._console.note(f"{event.file}: {decimal(event.done)} of {decimal(event.total)} ({percent} %)")

    def summarize(self) -> None:
        if self._sizes:
            count, size = len(self._sizes), decimal(sum(self._sizes.values()))
            seconds = time.monotonic() - self._start
            self._console.note(f"downloaded {count} file{'s' * (count > 1)}, {size}, in {seconds:.1f} s")
