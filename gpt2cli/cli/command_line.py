"""What all commands share: they refuse empty values, expand `~`, and suggest the right name for a wrong one."""

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from gpt2cli.bounds import FieldError
from gpt2cli.cli import commands
from gpt2cli.cli.typer_internals import CommandLineError, completion_of, is_option, name_of, prepared
from gpt2cli.errors import UsageError
from gpt2cli.suggestions import meant
from gpt2cli.untrusted import shown

CommandFunction = TypeVar("CommandFunction", bound=Callable[..., Any])

MEANT_OPTIONS = {
    **dict.fromkeys(
        ("--length", "--max-tokens", "--max-length", "--tokens", "--num-tokens"),
        ("--max-new-tokens", "--new-tokens", "--max-length"),
    ),
    **dict.fromkeys(("--temperature", "-t"), ("--temp",)),
    **dict.fromkeys(("--checkpoint", "--weights", "-c"), ("--ckpt",)),
    **dict.fromkeys(("--output", "--save", "-o"), ("--out",)),
    **dict.fromkeys(("--dataset", "--train-file", "-d"), ("--data", "--source")),
    **dict.fromkeys(("--file", "--input"), ("--prompt-file", "--data", "--source")),
    **dict.fromkeys(("--learning-rate", "--rate"), ("--lr",)),
    **dict.fromkeys(("--samples", "--num-return-sequences"), ("--num-samples", "--answers")),
    **dict.fromkeys(("--steps", "--iters", "--max-iters"), ("--max-steps",)),
    **dict.fromkeys(("--epoch", "--num-epochs", "--num-train-epochs"), ("--epochs",)),
    **dict.fromkeys(("--batch", "--bs"), ("--batch-size",)),
    **dict.fromkeys(("--rank", "-r"), ("--lora-rank",)),
    **dict.fromkeys(("--dtype", "--quantization"), ("--precision",)),
    **dict.fromkeys(("--gpu", "--cuda", "--cpu"), ("--device",)),
    "--verbose": ("--verbose", "--debug"),
    "--overwrite": ("--force",),
    **dict.fromkeys(("--delete", "--rm"), ("--remove",)),
    **dict.fromkeys(("--bind", "--address", "--listen"), ("--host",)),
    **dict.fromkeys(("--api-key", "--key"), ("--api-key-file",)),
    **dict.fromkeys(("--cors", "--cors-origins", "--allowed-origins", "--origin"), ("--cors-origin",)),
    **dict.fromkeys(("--parallel", "--batch-slots"), ("--slots",)),
}
"""Our options by other names that are too different in spelling to be recognized.

Of several options, the first is meant that the command has.
"""

MEANT_COMMANDS = {
    "commands": "gpt2 --help",
    **dict.fromkeys(("list", "models", "ls"), "gpt2 download-weights --list"),
    **dict.fromkeys(("train", "fine-tune", "tune", "learn"), "gpt2 finetune"),
    **dict.fromkeys(("run", "complete", "write", "sample"), "gpt2 generate"),
    **dict.fromkeys(("ask", "talk"), "gpt2 chat"),
    **dict.fromkeys(("server", "api", "http", "listen", "openai"), "gpt2 serve"),
    **dict.fromkeys(("eval", "test", "compare"), "gpt2 evaluate"),
    **dict.fromkeys(("inspect", "interpret", "lens", "attention"), "gpt2 explain"),
    **dict.fromkeys(("download", "pull", "fetch"), "gpt2 download-weights"),
    "convert": "gpt2 export",
    "prepare": "gpt2 prepare-alpaca",
    "version": "gpt2 --version",
}
"""The command lines to type, by other names for our commands."""


class Command(TyperCommand):
    """A command that raises UsageError for empty values.

    A path or a name of blanks counts as empty, a text (an option with the metavar TEXT) does not. Only the argument
    `prompt` may be empty.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            if not ctx.resilient_parsing:  # set during shell completion, when the line is not finished
                self._refuse_empty(ctx, args)
            rest: list[str] = super().parse_args(ctx, args)
            return rest
        except FieldError as error:
            raise UsageError(f"{error} (see `{ctx.command_path} --help`)") from None
        except CommandLineError as error:
            error.ctx = getattr(error, "ctx", None) or ctx
            self._suggest(ctx, error)
            raise

    def _refuse_empty(self, ctx: Any, args: list[str]) -> None:
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        for param in self.get_params(ctx):
            if not is_option(param) and param.name == "prompt":
                continue
            typed = given.get(param.name)
            values = [value for value in (typed if isinstance(typed, list | tuple) else [typed]) if type(value) is str]
            if not all(values if param.metavar == "TEXT" else map(str.strip, values)):
                name = name_of(param)
                raise UsageError(f"{name} is empty: give it a value, or leave it out (see `{ctx.command_path} --help`)")

    def _suggest(self, ctx: Any, error: Any) -> None:
        """Name the option that was probably meant in an error about an unknown option."""
        if not hasattr(error, "possibilities"):
            return
        by_name = {name: param for param in self.get_params(ctx) if is_option(param) for name in param.opts}
        for other, names in MEANT_OPTIONS.items():
            ours = [name for name in names if name in by_name]
            if ours:
                by_name.setdefault(other, by_name[ours[0]])
        exact = by_name.get(error.option_name)
        guess = meant(error.option_name, [name for name in by_name if name.startswith("--")])
        found = exact or (by_name[guess] if guess else None)
        error.possibilities = list(found.opts) if found else []

    def get_params(self, ctx: Any) -> Any:
        return prepared(super().get_params(ctx), show_page)


class Commands(Mapping[str, Any]):
    """The commands by name. A command's module is imported when the command is looked up."""

    def __init__(self) -> None:
        self._names = [name for names in commands.PANELS.values() for name in names]
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._made:
            module = import_module(f"gpt2cli.cli.commands.{name.replace('-', '_')}")
            alone = App(add_completion=False)
            module.register(alone)
            self._made[name] = typer.main.get_command(alone)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class CommandGroup(TyperGroup):
    """The command that has subcommands. The error about an unknown one names the one that was probably meant."""

    panels = commands.PANELS

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = Commands()  # type: ignore[assignment]

    def get_params(self, ctx: Any) -> Any:
        return prepared(super().get_params(ctx), show_page)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """The commands that begin so, without importing them, and the options."""
        summaries = [pair for panel in self.panels.values() for pair in panel.items()]
        found = [completion_of(name, text) for name, text in summaries if name.startswith(incomplete)]
        return found + super(TyperGroup, self).shell_complete(ctx, incomplete)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] == "help":  # `help NAME` is `NAME --help`
            args = [*args[1:2], "--help"]
            if len(args) == 1:
                show_page(self, ctx)
                raise typer.Exit
        try:
            return super().resolve_command(ctx, args)
        except CommandLineError:
            lines = {name: f"gpt2 {name}" for name in self.commands} | MEANT_COMMANDS
            name = meant(args[0], lines)
            advice = f"did you mean `{lines[name]}`?" if name else "see `gpt2 --help`"
            raise UsageError(f"there is no command {shown(args[0])}: {advice}") from None


def show_page(command: Any, context: Any) -> None:
    from gpt2cli.cli import help_pages  # imports rich

    help_pages.show_page(command, context)


class App(typer.Typer):
    """An app whose commands are all a `Command`, with `~` expanded in their paths."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[CommandFunction], CommandFunction]:
        def register(function: CommandFunction) -> CommandFunction:
            typer.Typer.command(self, name, cls=Command, **settings)(with_expanded_paths(function))
            return function

        return register


def with_expanded_paths(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function to expand `~` in its arguments that are paths. Shells do not expand the `~` in `--out=~/x`."""

    @wraps(function)
    def run(**arguments: Any) -> Any:
        from gpt2cli import paths

        expanded = {name: paths.expand(value) for name, value in arguments.items() if isinstance(value, Path)}
        return function(**arguments | expanded)

    return run
