"""What all commands do with their arguments: they refuse empty values, expand `~`, and correct wrong names."""

from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from gpt2cli import paths
from gpt2cli.errors import ResourceError, UsageError

CommandFunction = TypeVar("CommandFunction", bound=Callable[..., Any])
CommandLineError: Any = typer.BadParameter.__base__  # typer keeps its name private

MEANT_OPTIONS = {
    **dict.fromkeys(("--length", "--max-tokens", "--max-length", "--tokens", "--num-tokens"), "--max-new-tokens"),
    "--checkpoint": "--ckpt",
    "--file": "--prompt-file",
    "--learning-rate": "--lr",
    "--samples": "--num-samples",
    "--steps": "--max-steps",
    "--temperature": "--temp",
}
"""Names that other programs have for an option, where the spelling alone does not lead to ours."""

MEANT_COMMANDS = {
    **dict.fromkeys(("help", "commands"), "gpt2 --help"),
    **dict.fromkeys(("list", "models", "ls"), "gpt2 download-weights --list"),
    **dict.fromkeys(("train", "fine-tune", "tune", "learn"), "gpt2 finetune"),
    **dict.fromkeys(("run", "complete", "write", "sample"), "gpt2 generate"),
    **dict.fromkeys(("ask", "talk"), "gpt2 chat"),
    **dict.fromkeys(("eval", "test", "compare"), "gpt2 evaluate"),
    **dict.fromkeys(("download", "pull", "fetch"), "gpt2 download-weights"),
    "convert": "gpt2 export",
    "prepare": "gpt2 prepare-alpaca",
    "version": "gpt2 --version",
}
"""The same for commands: the whole command line that does it."""


class Command(TyperCommand):
    """A command that takes no empty values: it raises UsageError for them.

    A text (an option with the metavar TEXT) may consist of blanks, a path or a name may not. The argument `prompt` may
    be empty.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            if not ctx.resilient_parsing:  # the shell completes a line that is not finished
                self._refuse_empty(ctx, args)
            rest: list[str] = super().parse_args(ctx, args)
            return rest
        except CommandLineError as error:
            error.ctx = error.ctx or ctx
            self._suggest(ctx, error)
            raise

    def _refuse_empty(self, ctx: Any, args: list[str]) -> None:
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        for param in self.get_params(ctx):
            if param.param_type_name == "argument" and param.name == "prompt":
                continue
            is_text = param.metavar == "TEXT"
            if any(not (value if is_text else value.strip()) for value in _texts(given.get(param.name))):
                name = max(param.opts, key=len) if param.param_type_name == "option" else param.name.upper()
                raise UsageError(f"{name} is empty: give it a value, or leave it out (see `{ctx.command_path} --help`)")

    def _suggest(self, ctx: Any, error: Any) -> None:
        """Let an error about an unknown option name the one that was probably meant."""
        meant = MEANT_OPTIONS.get(getattr(error, "option_name", ""))
        for param in self.get_params(ctx):
            if meant in param.opts and hasattr(error, "possibilities"):
                error.possibilities = list(param.opts)


class CommandGroup(TyperGroup):
    """The command that has subcommands. For a name that is none of them, its error names the one that was meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except CommandLineError as error:
            if meant := MEANT_COMMANDS.get(args[0]):
                error.message = f"No such command {args[0]!r}. Did you mean `{meant}`?"
            raise


class App(typer.Typer):
    """An app all of whose commands are a `Command`, and run as `prepared` says."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[CommandFunction], CommandFunction]:
        def register(function: CommandFunction) -> CommandFunction:
            typer.Typer.command(self, name, cls=Command, **settings)(prepared(function))
            return function

        return register


def prepared(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command's function that gets its paths with `~` expanded, and whose EOFErrors are ResourceErrors.

    Shells leave `~` in `--out=~/x` as it is. Typer takes an EOFError for a Ctrl-D at a prompt, and leaves silently.
    """

    @wraps(function)
    def run(**arguments: Any) -> Any:
        for name, value in arguments.items():
            if isinstance(value, Path):
                arguments[name] = paths.expand(value)
        try:
            return function(**arguments)
        except EOFError as error:
            advice = "a file may be cut short: fetch or make it again (--debug shows which)"
            raise ResourceError(f"the input ended too early ({str(error) or 'EOFError'}): {advice}") from error

    return run


def _texts(value: Any) -> Iterator[str]:
    """The texts among the values that a parser has found for one option."""
    for each in value if isinstance(value, list | tuple) else (value,):
        if isinstance(each, str):
            yield each
