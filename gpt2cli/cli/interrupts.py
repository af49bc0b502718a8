"""Ctrl-C and SIGTERM while something is worth saving: the first asks it to end, the second ends it at once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(BaseException):
    """SIGTERM arrived: unwinds like Ctrl-C does, so that files and locks are let go in order."""


class Interrupts:
    """Which signal has asked for the end, if one has."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __bool__(self) -> bool:
        return self.received is not None

    def raise_received(self) -> None:
        """Leave as the signal would have done."""
        if self.received is not None:
            leave(self.received, None)


_terminated = False


def terminate(signum: int, frame: FrameType | None) -> None:
    """The handler of SIGTERM outside of `held_back`."""
    global _terminated
    _terminated = True
    raise Terminated


def leave(signum: int, frame: FrameType | None) -> None:
    """Unwind the program as the signal does outside of `held_back`."""
    raise KeyboardInterrupt if signum == signal.SIGINT else Terminated


@contextmanager
def held_back(announce: Callable[[], None]) -> Iterator[Interrupts]:
    """Within, the first signal is only noted, and announced; a second one leaves at once."""
    if _terminated:  # while a library was imported that takes any exception for a reason to do without something
        raise Terminated
    interrupts = Interrupts()

    def handle(signum: int, frame: FrameType | None) -> None:
        if interrupts:
            leave(signum, frame)
        interrupts.received = signum
        announce()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
