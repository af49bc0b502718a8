"""Prints the log of a server in a thread: a write to a pipe that nobody reads, or after Ctrl-S, takes for ever."""

from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from queue import SimpleQueue
from threading import Event, RLock, Thread
from types import TracebackType
from typing import Any

from gpt2cli.cli.terminal import Console
from gpt2cli.counted import counted

MOST_WAITING = 1000
"""Lines that wait to be printed. Further ones are left out, and counted, until half of these are printed."""
LONGEST_END = 1.0
"""The most seconds until the last lines are printed, at the end."""


class LogPrinter:
    """A context manager. Lines for people go to stderr; if `json`, events for programs go to stdout.

    Threads and signal handlers can call its methods, which return at once.

    fail  called in the printing thread with the exception that ends it: OSError if stdout cannot be written
    """

    def __init__(self, console: Console, json: bool, fail: Callable[[Exception], None]) -> None:
        self.json = json
        self._console, self._fail = console, fail
        self._lines = SimpleQueue[Callable[[], None] | None]()  # reentrant, for signal handlers, as is the lock
        self._lock = RLock()
        self._left_out = 0
        self._is_done = Event()

    def __enter__(self) -> "LogPrinter":
        Thread(target=self._print, name="log", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lines.put(None)
        self._is_done.wait(LONGEST_END)

    def note(self, text: str) -> None:
        """Print a line for people, unless the command is quiet."""
        self._put(partial(self._console.note, text))

    def event(self, kind: str, **values: Any) -> None:
        """Print an event of this moment for programs."""
        if self.json:
            now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            self._put(partial(self._console.json, {"kind": kind, "time": now, **values}))

    def _put(self, line: Callable[[], None]) -> None:
        with self._lock:
            if self._lines.qsize() >= (MOST_WAITING // 2 if self._left_out else MOST_WAITING):
                self._left_out += 1
                return
            left_out, self._left_out = self._left_out, 0
            if left_out:
                self.note(f"{counted(left_out, 'line')} of the log were left out, because nobody read it")
                self.event("left_out", lines=left_out)
            self._lines.put(line)

    def _print(self) -> None:
        try:
            while line := self._lines.get():
                line()
        except Exception as error:
            self._fail(error)
        finally:
            self._is_done.set()
