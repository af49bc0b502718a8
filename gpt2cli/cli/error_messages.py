"""From an exception to the message and the exit code."""

import sys
import traceback
from contextlib import suppress
from itertools import takewhile
from typing import Any

from gpt2cli.cli.command_line import CommandLineError
from gpt2cli.cli.terminal import report_error, visible
from gpt2cli.errors import GPT2Error, ResourceError, UsageError


def report(error: BaseException) -> int:
    """Show an error as one line on stderr, with `--debug` behind its traceback. Returns its exit code."""
    message, code = describe(error)
    with suppress(OSError, SystemExit):  # where nobody can read it, the code still says it
        if "--debug" in takewhile(lambda argument: argument != "--", sys.argv):
            sys.stderr.write(visible("".join(traceback.format_exception(error))))
        report_error(message)
    return code


def describe(error: BaseException) -> tuple[str, int]:
    """What to say about an error, and the exit code that goes with it."""
    if isinstance(error, GPT2Error):
        return str(error), error.exit_code
    if isinstance(error, CommandLineError):
        return _on_one_line(_describe_usage(error)), UsageError.exit_code
    if isinstance(error, OSError):
        return f"{error.strerror or error}{_place(error)}", ResourceError.exit_code
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error).lower():
        return "out of memory: try a smaller model, a lower --precision, or fewer samples", ResourceError.exit_code
    return f"unexpected {type(error).__name__}: {_on_one_line(str(error))} (--debug shows where it happened)", 1


def _describe_usage(error: Any) -> str:
    hint = f"see `{error.ctx.command_path if error.ctx else 'gpt2'} --help`"
    if type(error).__name__ == "NoSuchOption" and error.ctx and error.ctx.info_name == "generate":
        hint += ", or put `--` before a prompt that begins with -"
    return f"{error.format_message().rstrip('.')} ({hint})"


def _on_one_line(text: str) -> str:
    """A library's text on one line: its line ends are only layout."""
    return " ".join(text.split())


def _place(error: OSError) -> str:
    """The files that an error of the operating system names."""
    return "".join(f": {name}" for name in (error.filename, error.filename2) if name is not None and name != "")
