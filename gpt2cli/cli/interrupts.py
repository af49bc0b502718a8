"""Ctrl-C, SIGTERM and SIGHUP raise exceptions. During work that must be saved, the first one only asks for the end."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGHUP: int | None = getattr(signal, "SIGHUP", None)  # a closed terminal or a lost connection; Windows does not have it
ENDING = [number for number in (signal.SIGINT, signal.SIGTERM, SIGHUP) if number is not None]


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived. An exception lets `with` and `finally` release files and locks, as for Ctrl-C."""

    def __init__(self, signum: int = signal.SIGTERM) -> None:
        super().__init__(signum)
        self.signum = signum


class Interrupts:
    """The signal that asked the program to end, if any. An instance is true after a signal."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __bool__(self) -> bool:
        return self.received is not None

    def raise_received(self) -> None:
        """Raise the signal's exception if a signal arrived."""
        if self.received is not None:
            raise exception_of(self.received)


_unwound = Interrupts()
"""The last signal that `unwind` handled."""


def install_handlers() -> None:
    """Make SIGTERM and SIGHUP raise `Terminated`, as Ctrl-C raises KeyboardInterrupt.

    SIGINT and SIGHUP stay ignored if they are, as under nohup.
    """
    for number in ENDING:
        if number == signal.SIGTERM or not is_ignored(number):
            signal.signal(number, unwind)


def remove_handlers() -> None:
    """Let a signal end the process at once. The caller has nothing left to clean up."""
    for number in ENDING:
        if not is_ignored(number):
            signal.signal(number, signal.SIG_DFL)


def is_ignored(signum: int) -> bool:
    return signal.getsignal(signum) == signal.SIG_IGN


def unwind(signum: int, frame: FrameType | None) -> None:
    """Handle a signal outside of `held_back`: remember it, and raise its exception."""
    _unwound.received = signum
    if signum == SIGHUP:  # when a terminal closes, both the kernel and the shell send it
        signal.signal(signum, signal.SIG_IGN)
    raise exception_of(signum)


def received() -> int | None:
    """The last signal that `unwind` handled, or None.

    Some libraries catch its exception, and continue or raise another one: safetensors then reports a damaged file.
    """
    return _unwound.received


def raise_received() -> None:
    """Raise the signal's exception again if a library caught it."""
    _unwound.raise_received()


def forget_ctrl_c() -> None:
    """Forget a Ctrl-C after which the program continues."""
    if _unwound.received == signal.SIGINT:
        _unwound.received = None


def exception_of(signum: int) -> BaseException:
    return KeyboardInterrupt() if signum == signal.SIGINT else Terminated(signum)


@contextmanager
def held_back(announce: Callable[[], None]) -> Iterator[Interrupts]:
    """Inside the block, the first signal is only stored and announced. The second raises its exception at once.

    A second SIGHUP is ignored: when a terminal closes, both the kernel and the shell send one.
    """
    raise_received()
    interrupts = Interrupts()

    def handle(signum: int, frame: FrameType | None) -> None:
        if not interrupts:
            interrupts.received = signum
            announce()
        elif signum != SIGHUP:
            raise exception_of(signum)

    handled = [number for number in ENDING if number != SIGHUP or not is_ignored(number)]
    before = {number: signal.signal(number, handle) for number in handled}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
