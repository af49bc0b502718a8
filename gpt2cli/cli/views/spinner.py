"""A line on a terminal that says what the program is doing, before there is anything to show."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from threading import Event, Thread
from typing import TypeVar

from gpt2cli.cli.terminal import Console, visible_line

SECONDS_BEFORE_SPINNER = 1.0
"""Work that takes less time shows nothing."""
SPINNER, ASCII_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "-\\|/"
FRAMES_PER_SECOND = 10
Item = TypeVar("Item")


@contextmanager
def working(console: Console, what: str) -> Iterator[None]:
    """Show `what` and the seconds since the beginning on a terminal, while the block runs. Elsewhere show nothing.

    The line appears after SECONDS_BEFORE_SPINNER. It gives way to other output and to other displays, and is erased
    at the end, also after an error or Ctrl-C. A thread draws it, so that it moves during long imports, too.
    """
    if console.quiet or not console.animates:
        yield
        return
    owner, over, start = object(), Event(), time.monotonic()

    def draw() -> None:
        frames = cycle(ASCII_SPINNER if console.err.options.ascii_only else SPINNER)
        over.wait(SECONDS_BEFORE_SPINNER)
        while not over.is_set():
            seconds = time.monotonic() - start
            console.draw_status(owner, f"{next(frames)} {visible_line(what)}: {seconds:.0f} s")
            over.wait(1 / FRAMES_PER_SECOND)

    console.begin_status(owner)
    try:
        Thread(target=draw, daemon=True).start()
        yield
    finally:
        over.set()
        console.end_status(owner)


def waiting_for(items: Iterable[Item], console: Console, what: str) -> Iterator[Item]:
    """Yields the items, and shows that the program is `working` until the first one comes."""
    iterator = iter(items)
    with working(console, what):
        first = list(islice(iterator, 1))
    yield from first
    yield from iterator
