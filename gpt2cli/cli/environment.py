"""The streams and variables of a command: those of the process, or those that a test passes to `main`.

`main` makes its environment the current one. Everything in cli/ gets the streams from `current`, never from `sys`.
"""

import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TextIO


class NotesStream(io.TextIOWrapper):
    """A stream for notes and progress. If it cannot be written (no reader, a full disk), the command goes on."""

    def write(self, text: str) -> int:
        with suppress(OSError, RuntimeError):  # RuntimeError: a signal's handler writes in the middle of a write
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, RuntimeError):
            super().flush()


@dataclass(frozen=True)
class Environment:
    """The streams and variables of one run of the command line.

    variables  the environment variables that decide how output looks, such as NO_COLOR
    debug      whether errors are shown with their traceback (`--debug`)
    """

    stdin: TextIO
    stdout: TextIO
    stderr: TextIO
    variables: Mapping[str, str]
    debug: bool = False

    @classmethod
    def of_process(cls) -> "Environment":
        """The streams of this process, prepared for writing any text. Replaces those in `sys`.

        /dev/null takes the place of a closed stream. A character that the locale's encoding lacks is written as an
        escape sequence. Errors of writing to stderr are ignored.
        """
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:
                setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123 (it stays open)
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        encoding = sys.stderr.encoding
        sys.stderr = NotesStream(sys.stderr.detach(), encoding, "backslashreplace", line_buffering=True)  # type: ignore[union-attr]
        return cls(sys.stdin, sys.stdout, sys.stderr, os.environ)

    def with_debug(self, debug: bool) -> "Environment":
        return replace(self, debug=debug)

    def close(self) -> None:
        """Flush the output. A stream that cannot be written is redirected to /dev/null.

        Otherwise Python would write to it again when it exits, fail, and change the exit code.
        """
        for stream in (self.stdout, self.stderr):
            try:
                stream.flush()
            except OSError:  # noqa: PERF203 (there are two)
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


_current: ContextVar[Environment] = ContextVar("_current")


def current() -> Environment:
    """The environment of the running command. Outside of `main`, the streams and variables of the process."""
    return _current.get(None) or Environment(sys.stdin, sys.stdout, sys.stderr, os.environ)


@contextmanager
def use(environment: Environment) -> Iterator[None]:
    """Make this the current environment. Libraries that write to `sys.stdout` or `sys.stderr` use it as well."""
    token = _current.set(environment)
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin, sys.stdout, sys.stderr = environment.stdin, environment.stdout, environment.stderr
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
        _current.reset(token)
