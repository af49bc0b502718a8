"""Ctrl-C, SIGTERM and SIGHUP while something is worth saving: the first asks it to end, the second ends it at once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGHUP: int | None = getattr(signal, "SIGHUP", None)  # a closed terminal, a lost connection; Windows has none
_ENDING = [number for number in (signal.SIGINT, signal.SIGTERM, SIGHUP) if number is not None]


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived: unwinds as Ctrl-C does, so that files and locks are released in order."""

    def __init__(self, signum: int = signal.SIGTERM) -> None:
        super().__init__(signum)
        self.signum = signum


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


_received: int | None = None


def install_handlers() -> None:
    """Let SIGTERM and SIGHUP unwind the program, as Ctrl-C does, and note each signal: see `received`.

    Where SIGINT or SIGHUP is ignored, as under nohup, it stays ignored.
    """
    signal.signal(signal.SIGTERM, unwind)
    for number in (signal.SIGINT, SIGHUP):
        if number is not None and not is_ignored(number):
            signal.signal(number, unwind)


def remove_handlers() -> None:
    """Let a signal end the process at once: there is nothing left to unwind."""
    for number in _ENDING:
        if not is_ignored(number):
            signal.signal(number, signal.SIG_DFL)


def is_ignored(signum: int) -> bool:
    return signal.getsignal(signum) == signal.SIG_IGN


def unwind(signum: int, frame: FrameType | None) -> None:
    """The handler of all these signals outside of `held_back`."""
    global _received
    _received = signum
    if signum == SIGHUP:  # the kernel and the shell both send it when a terminal closes: once is enough
        signal.signal(signum, signal.SIG_IGN)
    leave(signum, frame)


def received() -> int | None:
    """The signal that `unwind` was called for, if there was one.

    Some libraries catch what it raises, and go on or raise another error. For example, safetensors then reports a
    damaged file.
    """
    return _received


def raise_received() -> None:
    """Unwind the program if a signal arrived and a library caught what `unwind` raised."""
    if _received is not None:
        leave(_received, None)


def forget_ctrl_c() -> None:
    """Forget a Ctrl-C that has been dealt with: the program goes on."""
    global _received
    if _received == signal.SIGINT:
        _received = None


def leave(signum: int, frame: FrameType | None) -> None:
    """Unwind the program as the signal does outside of `held_back`."""
    raise KeyboardInterrupt if signum == signal.SIGINT else Terminated(signum)


@contextmanager
def held_back(announce: Callable[[], None]) -> Iterator[Interrupts]:
    """Within, the first signal is only noted, and announced; a second one leaves at once.

    A second SIGHUP does not: when a terminal closes, both the kernel and the shell send one.
    """
    raise_received()  # as while a library was imported that catches any exception
    interrupts = Interrupts()

    def handle(signum: int, frame: FrameType | None) -> None:
        if not interrupts:
            interrupts.received = signum
            announce()
        elif signum != SIGHUP:
            leave(signum, frame)

    heeded = [number for number in _ENDING if number != SIGHUP or not is_ignored(number)]
    before = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
