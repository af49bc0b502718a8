"""Code that depends on the internals of Typer. Tests check it with the installed version."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.exceptions import TyperException

CommandLineError: Any = TyperException
"""The base class of Typer's errors about a command line. Some have the command's context as `ctx`, or None."""

COMPLETION = "_GPT2_COMPLETE"
"""The environment variable that a shell sets to get completions."""


def invoke(app: typer.Typer, arguments: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run a command line. Returns the exit code, and lets all exceptions pass.

    `Typer.__call__` would replace BrokenPipeError, EOFError and KeyboardInterrupt by other exceptions. Only shell
    completion needs it.
    """
    if COMPLETION in variables:
        app(list(arguments), prog_name="gpt2")
    command = typer.main.get_command(app)
    try:
        with command.make_context("gpt2", list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as leaving:  # --help raises it as well
        return leaving.exit_code
    return 0


def with_short_help(params: list[Any]) -> list[Any]:
    """The parameters of a command, prepared for its help page.

    Flags have no type, because they take no value. Defaults that are described in words have no parentheses.
    """
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""  # shown in place of the type
        if isinstance(param.show_default, str):
            param._get_default_string = lambda words=param.show_default, **_: words
    return params


@contextmanager
def help_in_color(allowed: bool) -> Iterator[None]:
    """Inside the block, help pages have styles only if `allowed`. NO_COLOR alone would leave bold and dim."""
    if allowed:  # the import takes time, and only help pages need it
        yield
        return
    from typer import rich_utils

    before, rich_utils.COLOR_SYSTEM = rich_utils.COLOR_SYSTEM, None
    try:
        yield
    finally:
        rich_utils.COLOR_SYSTEM = before
