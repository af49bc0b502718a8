"""Ctrl-C, SIGTERM and SIGHUP: each raises an exception, or is held back once while something must be saved."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGHUP: int | None = getattr(signal, "SIGHUP", None)  # a closed terminal or a lost connection; Windows does not have it
ENDING = [number for number in (signal.SIGINT, signal.SIGTERM, SIGHUP) if number is not None]


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived. As for Ctrl-C, the exception releases files and locks on its way."""

    def __init__(self, signum: int = signal.SIGTERM) -> None:
        super().__init__(signum)
        self.signum = signum


class Interrupts:
    """Which signal asked the program to end; false if none did."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __bool__(self) -> bool:
        return self.received is not None

    def raise_received(self) -> None:
        """Raise the signal's exception if a signal arrived."""
        if self.received is not None:
            leave(self.received, None)


_unwound = Interrupts()
"""The signal that `unwind` was called for."""


def install_handlers() -> None:
    """Make SIGTERM and SIGHUP raise `Terminated`, as Ctrl-C raises KeyboardInterrupt. `received` tells of each signal.

    SIGINT and SIGHUP stay ignored if they are, as under nohup.
    """
    signal.signal(signal.SIGTERM, unwind)
    for number in (signal.SIGINT, SIGHUP):
        if number is not None and not is_ignored(number):
            signal.signal(number, unwind)


def remove_handlers() -> None:
    """Let a signal end the process at once, when nothing is left to unwind."""
    for number in ENDING:
        if not is_ignored(number):
            signal.signal(number, signal.SIG_DFL)


def is_ignored(signum: int) -> bool:
    return signal.getsignal(signum) == signal.SIG_IGN


def unwind(signum: int, frame: FrameType | None) -> None:
    """The handler of all these signals outside of `held_back`."""
    _unwound.received = signum
    if signum == SIGHUP:  # when a terminal closes, both the kernel and the shell send it
        signal.signal(signum, signal.SIG_IGN)
    leave(signum, frame)


def received() -> int | None:
    """The signal that `unwind` was called for, if there was one.

    Some libraries catch the exception that it raises, and go on or raise another one. For example, safetensors then
    reports a damaged file.
    """
    return _unwound.received


def raise_received() -> None:
    """Raise the signal's exception again if a library caught it."""
    _unwound.raise_received()


def forget_ctrl_c() -> None:
    """Forget a Ctrl-C after which the program goes on."""
    if _unwound.received == signal.SIGINT:
        _unwound.received = None


def leave(signum: int, frame: FrameType | None) -> None:
    """Raise the exception of a signal: KeyboardInterrupt for SIGINT, Terminated for the others."""
    raise KeyboardInterrupt if signum == signal.SIGINT else Terminated(signum)


@contextmanager
def held_back(announce: Callable[[], None]) -> Iterator[Interrupts]:
    """Inside the block, the first signal is only noted and announced. The second raises its exception at once.

    A second SIGHUP is ignored: when a terminal closes, both the kernel and the shell send one.
    """
    raise_received()  # a library may have caught the exception of an earlier signal
    interrupts = Interrupts()

    def handle(signum: int, frame: FrameType | None) -> None:
        if not interrupts:
            interrupts.received = signum
            announce()
        elif signum != SIGHUP:
            leave(signum, frame)

    heeded = [number for number in ENDING if number != SIGHUP or not is_ignored(number)]
    before = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
