"""The message and the exit code of an exception."""

import traceback
from contextlib import suppress
from typing import Any

from gpt2cli.cli.environment import current
from gpt2cli.cli.terminal import report_error, visible
from gpt2cli.cli.typer_internals import CommandLineError
from gpt2cli.errors import ExitCode, GPT2Error
from gpt2cli.untrusted import shown_name


def report(error: BaseException) -> int:
    """Print an error as one line on stderr, with `--debug` after its traceback. Returns its exit code."""
    message, code = describe(error)
    with suppress(OSError):  # if stderr cannot be written, only the exit code reports the error
        if current().debug:
            current().stderr.write(visible("".join(traceback.format_exception(error))))
        report_error(message)
    return code


def describe(error: BaseException) -> tuple[str, int]:
    """The message for an error, and its exit code."""
    if isinstance(error, GPT2Error):
        return str(error), error.exit_code
    if isinstance(error, CommandLineError):
        return _on_one_line(_describe_usage(error)), ExitCode.USAGE
    if isinstance(error, EOFError):
        advice = "a file may be cut short: download or make it again (--debug shows which)"
        return f"the input ended too early ({str(error) or 'EOFError'}): {advice}", ExitCode.RESOURCE
    if isinstance(error, OSError):
        files = [f": {name}" for name in (error.filename, error.filename2) if name is not None and name != ""]
        return f"{error.strerror or error}{''.join(files)}", ExitCode.RESOURCE
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error).lower():
        return "out of memory: try a smaller model, a lower --precision, or fewer samples", ExitCode.RESOURCE
    return (
        f"unexpected {type(error).__name__}: {_on_one_line(str(error))} (--debug shows where it happened)",
        ExitCode.BUG,
    )


def _describe_usage(error: Any) -> str:
    context = getattr(error, "ctx", None)
    hint = f"see `{context.command_path if context else 'gpt2'} --help`"
    if type(error).__name__ != "NoSuchOption":
        message = error.format_message().rstrip(".")
        quotes = "put the prompt in quotes"
        advice = {"generate": quotes, "explain": quotes, "chat": "add --prompt before the instruction"}
        advice["info"] = "name a model with --model"
        if "extra argument" in message and context and context.info_name in advice:
            hint = f"{advice[context.info_name]}, or {hint}"
        return f"{message} ({hint})"
    meant = f": did you mean {', '.join(error.possibilities)}?" if error.possibilities else ""
    if not meant and context and context.info_name in ("generate", "explain"):
        hint += ", or put `--` before a prompt that begins with -"
    return f"there is no option {shown_name(error.option_name)}{meant} ({hint})"


def _on_one_line(text: str) -> str:
    """A library's message without its line ends, which are only layout."""
    return " ".join(text.split())
