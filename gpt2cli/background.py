"""Work that goes on in threads while a command continues. The process ends after it."""

import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread, main_thread

DELAY = 3.0
"""Seconds before the work begins, unless the command has finished before: its first results need all processors."""
GoOn = Callable[[], None]
Work = Callable[[GoOn], str | None]
"""A function that works, and returns what the user should know, or None. It often calls its argument, which raises
AbandonedError once the work should end."""


class AbandonedError(Exception):
    """The process is going to end, and does not wait for the work's result."""


class _Task(Thread):
    """One piece of work. It is not a daemon: the interpreter waits for it, also if nobody calls `finish`."""

    def __init__(self, work: Work, tell: Callable[[str], None]) -> None:
        super().__init__(name="background")
        self._work: Work | None = work
        self._tell = tell
        self._text: str | None = None
        self._is_abandoned = False
        self._must_begin, self._is_done = Event(), Event()

    def run(self) -> None:
        end = time.monotonic() + DELAY
        while time.monotonic() < end and main_thread().is_alive() and not self._must_begin.wait(0.03):
            pass
        try:
            with suppress(AbandonedError):
                self._go_on()
                self._text = self._work(self._go_on) if self._work else None
        finally:
            self._work = None  # it may hold much memory
            if self._text is None:
                _tasks.remove(self)
            self._is_done.set()

    def finish(self) -> None:
        self._must_begin.set()
        self._is_done.wait()  # a signal during `join` would make Python 3.11 take the thread for done
        if self._text is not None:
            _tasks.remove(self)
            self._tell(self._text)

    def abandon(self) -> None:
        self._is_abandoned = True
        self._must_begin.set()

    def _go_on(self) -> None:
        if self._is_abandoned:
            raise AbandonedError


_tasks: list[_Task] = []
"""What is not done, and what is done but has something to tell."""


def start(work: Work, tell: Callable[[str], None]) -> None:
    """Work in a thread, from DELAY or the end on. `finish` calls `tell` with what the work returns, unless None."""
    task = _Task(work, tell)
    _tasks.append(task)
    task.start()


def finish() -> None:
    """Wait for all work, and tell its results. A signal's exception ends the wait."""
    for task in _tasks.copy():
        task.finish()


def abandon() -> None:
    """Let all work end soon, without its result. Does not wait for that."""
    for task in _tasks.copy():
        task.abandon()
