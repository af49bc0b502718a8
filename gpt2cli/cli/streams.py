"""The three streams that the shell gives, made to bear whatever it did to them."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


class Aside(io.TextIOWrapper):
    """A stream for notes and progress: that nobody reads them, or that a disk is full, is no reason to stop."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def open_streams() -> None:
    """Put /dev/null in place of closed streams, and escapes in place of characters that a locale does not have.

    Errors of writing to stderr are ignored from then on.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123 (it stays open)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    encoding = sys.stderr.encoding
    sys.stderr = Aside(sys.stderr.detach(), encoding, "backslashreplace", line_buffering=True)  # type: ignore[union-attr]


def close_streams() -> None:
    """Let go of what cannot be written any more: Python would try again at its end, and change the exit code."""
    _let_go(sys.stdout)
    _let_go(sys.stderr)


def _let_go(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def typing_unseen() -> Iterator[None]:
    """Let what is typed wait for the next line, unseen, so that it does not end up in the middle of an answer."""
    try:
        import termios
    except ImportError:  # on Windows it waits unseen anyway
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    unseen = termios.tcgetattr(sys.stdin)
    unseen[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(sys.stdin, termios.TCSANOW, unseen)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
