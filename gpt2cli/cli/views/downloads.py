"""The progress of a download: one bar for all files of a model, or a line every 10 seconds and one at the end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gpt2cli.cli.terminal import Console
from gpt2cli.counted import counted
from gpt2cli.progress import Note, Progress, Received

if TYPE_CHECKING:
    from gpt2cli.cli.views.progress import ProgressBars

WIDE = 70
"""Columns that a terminal needs for the size, the speed and the remaining time beside the bar."""


@contextmanager
def showing_downloads(console: Console) -> Iterator[Progress]:
    """Yields the `progress` argument of the functions that download. Shows nothing if nothing is downloaded."""
    downloads = _Downloads(console)
    try:
        yield downloads
    finally:
        downloads.close()
    if not console.animates:
        downloads.summarize()


def _make_bars(console: Console) -> "ProgressBars":
    from rich.progress import DownloadColumn, TaskProgressColumn, TimeRemainingColumn, TransferSpeedColumn

    from gpt2cli.cli.views.progress import ProgressBars

    wide = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    columns = wide if console.err.width >= WIDE else (TaskProgressColumn(),)
    return ProgressBars(console, columns, width=None, keep=True)


class _Downloads:
    """The files that were received so far, by name. The bars are made with the first one, because they import rich."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: ProgressBars | None = None
        self._start = time.monotonic()
        self._files: dict[str, Received] = {}
        self._transferred = 0

    def __call__(self, event: Received | Note) -> None:
        if isinstance(event, Note):
            self._console.note(event.text)
            return
        from rich.filesize import decimal

        self._bars = self._bars or _make_bars(self._console)
        before = self._files.get(event.file, event)  # bytes of an earlier run were not transferred now
        self._transferred += max(0, event.done - before.done)
        self._files[event.file] = event
        percent = 100 * event.done // max(event.total, 1)
        self._bars.update(
            "downloading",
            sum(file.done for file in self._files.values()),
            sum(file.total for file in self._files.values()),
            line=f"{event.file}: {decimal(event.done)} of {decimal(event.total)} ({percent} %)",
        )

    def close(self) -> None:
        if self._bars is not None:
            self._bars.close()

    def summarize(self) -> None:
        if self._files:
            from rich.filesize import decimal

            files, size = counted(len(self._files), "file"), decimal(self._transferred)
            self._console.note(f"downloaded {files}, {size}, in {time.monotonic() - self._start:.1f} s")
