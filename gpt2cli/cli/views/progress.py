"""Shows progress on stderr: live on a terminal, a line every 10 seconds elsewhere, nothing with --quiet."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TypeVar

from rich import progress as rich_progress
from rich.console import RenderableType
from rich.live import Live

from gpt2cli.cli.terminal import Console, visible_line

SECONDS_BETWEEN_LINES = 10.0
REFRESHES_PER_SECOND = 4
Display = TypeVar("Display", bound="LiveDisplay")
PERCENT_AND_TIME_LEFT = (rich_progress.TaskProgressColumn(), rich_progress.TimeRemainingColumn())


class LiveDisplay:
    """Draws one picture again and again below the other output. Use it in a `with` statement.

    keep  whether the last picture stays on the screen
    """

    def __init__(self, console: Console, picture: RenderableType, keep: bool = False) -> None:
        self._console = console
        self._picture = picture
        self._keep = keep
        self._live: Live | None = None
        self._start = self._last_line = time.monotonic()

    def __enter__(self: Display) -> Display:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def show(self, line: str = "") -> None:
        """Show the picture on a terminal. Elsewhere print a line, if any, now and then.

        The lines are SECONDS_BETWEEN_LINES apart, later a tenth of the time since the start: 40 lines in an hour.
        """
        if self._console.quiet:
            return
        if self._console.animates:
            if self._live is None:
                self._console.cover_status()
                self._live = Live(
                    self._picture,
                    console=self._console.err,
                    refresh_per_second=REFRESHES_PER_SECOND,
                    transient=not self._keep,
                    redirect_stdout=False,  # stdout holds results only
                )
                self._live.start()
            return
        now = time.monotonic()
        if line and now - self._last_line >= max(SECONDS_BETWEEN_LINES, (now - self._start) / 10):
            self._last_line = now
            self._console.note(line)

    def close(self) -> None:
        """Stop drawing."""
        live, self._live = self._live, None
        if live:
            live.stop()
            self._console.uncover_status()


class ProgressBars(LiveDisplay):
    """One bar for each task.

    columns  what follows the bar
    width    of the bar; None for all columns of the terminal that are left
    """

    def __init__(
        self,
        console: Console,
        columns: Sequence[rich_progress.ProgressColumn] = PERCENT_AND_TIME_LEFT,
        *,
        width: int | None = 40,
        keep: bool = False,
    ) -> None:
        description = rich_progress.TextColumn("{task.description}", markup=False)
        self._bars = rich_progress.Progress(description, rich_progress.BarColumn(width), *columns, console=console.err)
        self._tasks: dict[str, rich_progress.TaskID] = {}
        super().__init__(console, self._bars, keep)

    def update(self, task: str, done: int, total: int | None, *, description: str = "", line: str = "") -> None:
        """Show that `done` of `total` are done, where `total` is None if it is not known.

        description  stands before the bar, by default `task`
        line         is printed where no bar is drawn, as by `show`
        """
        if task not in self._tasks:
            self._tasks[task] = self._bars.add_task(visible_line(description or task), total=total)
        self._bars.update(self._tasks[task], completed=done, total=total)
        self.show(line)
