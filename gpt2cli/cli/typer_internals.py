"""Code that depends on the internals of Typer. Tests check it with the installed version."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args, get_origin

import typer
from typer._click.shell_completion import CompletionItem
from typer._coercion import RuntimeParam
from typer.exceptions import TyperException

from gpt2cli.cli.option_values import parse_value

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


class _Value(RuntimeParam):
    """Converts what was typed by `parse_value`. Typer would import pydantic for that: a third of the start's time."""

    def _coerce_value(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, list | tuple):
            return self._parsed(value, self.annotation, param)
        [item_type] = get_args(self.annotation)
        return [self._parsed(item, item_type, param) for item in value]

    def _parsed(self, value: Any, kind: Any, param: Any) -> Any:
        info = self.parameter_info
        return parse_value(value, kind, name_of(param), info.min, info.max) if isinstance(value, str) else value


def prepared(params: list[Any], show_page: Callable[[Any, Any], None]) -> list[Any]:
    """The parameters of a command. They convert their values by `parse_value`, and --help calls `show_page`."""

    def show_help(context: Any, _: Any, wanted: bool) -> None:
        if wanted and not context.resilient_parsing:
            show_page(context.command, context)
            raise typer.Exit

    for param in params:
        if "--help" in param.opts:
            param.callback, param.help = show_help, "Show this page."
        if not isinstance(param._runtime_param, _Value):
            described = param.type_descriptor
            param._runtime_param = _Value(described.parameter_info, described.annotation)
    return params


def completion_of(name: str, summary: str) -> Any:
    """A name that the shell can complete, with its description."""
    return CompletionItem(name, help=summary)


def name_of(param: Any) -> str:
    """The name of a parameter in messages: the longest of an option, or the argument's in upper case."""
    return str(max(param.opts, key=len)) if is_option(param) else argument_name(param)


def is_option(param: Any) -> bool:
    return bool(param.param_type_name == "option")


def argument_name(param: Any) -> str:
    return str(param.metavar or param.name.upper())


def value_type(param: Any) -> Any:
    """The type of one value of a parameter: `str` for a `list[str]`."""
    annotation = param.type_descriptor.annotation
    return get_args(annotation)[0] if get_origin(annotation) is list else annotation


def default_in_words(param: Any, ctx: Any) -> str:
    """The default of a parameter for the help page; empty if there is nothing to show."""
    if isinstance(param.show_default, str):
        return param.show_default
    default = param.get_default(ctx, call=False)
    is_shown = param.show_default and default is not None and not isinstance(default, bool)
    return str(default) if is_shown else ""
