"""What typer_internals.py says of Typer is true of the installed version."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer

from gpt2cli.cli.command_line import App
from gpt2cli.cli.typer_internals import CommandLineError, default_in_words, invoke, value_type
from gpt2cli.errors import UsageError
from tests.runner import screen


def app_of(error: BaseException | None = None) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    def first(number: Annotated[int, typer.Option()] = 0) -> None:
        if error:
            raise error

    @app.command()
    def second() -> None:
        pass

    return app


@pytest.mark.parametrize(
    "args", [["first", "--number", "x"], ["first", "--numb", "1"], ["first", "x"], ["third"], ["first", "--number"]]
)
def test_errors_about_a_command_line_have_one_base_and_a_message(args):
    with pytest.raises(CommandLineError) as caught:
        invoke(app_of(), args, {})
    assert caught.value.format_message()
    context = getattr(caught.value, "ctx", None)
    assert context is None or context.command_path.startswith("gpt2")


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "full"), EOFError(), KeyboardInterrupt()], ids=repr)
def test_what_a_command_raises_reaches_the_caller(error):
    with pytest.raises(type(error)) as caught:
        invoke(app_of(error), ["first"], {})
    assert caught.value is error


def test_the_exit_code_is_returned(capsys):
    assert invoke(app_of(), ["second"], {}) == 0
    assert invoke(app_of(typer.Exit(7)), ["first"], {}) == 7
    assert invoke(app_of(), ["--help"], {}) == 0
    assert "Usage: gpt2 [OPTIONS] COMMAND" in capsys.readouterr().out


def test_help_has_no_styles_where_none_are_allowed():
    assert "\x1b[1m" in screen("--help")
    assert "\x1b" not in screen("--help", NO_COLOR="1")
    assert "\x1b[1m" in screen("--help")


def many_types() -> tuple[App, dict[str, Any]]:
    """An app with an option of every type that our commands use, and the values that it receives."""
    app, received = App(), {}

    @app.command()
    def first(
        text: Annotated[str | None, typer.Argument()] = None,
        whole: Annotated[int, typer.Option(min=1, max=9)] = 3,
        real: Annotated[float | None, typer.Option(show_default="random")] = None,
        path: Annotated[Path | None, typer.Option()] = None,
        kind: Annotated[Literal["a", "b"], typer.Option()] = "a",
        several: Annotated[list[str] | None, typer.Option()] = None,
        flag: Annotated[bool, typer.Option("--flag/--no-flag")] = False,
    ) -> None:
        received.update(locals())

    @app.command()
    def second() -> None:
        pass

    return app, received


def test_values_have_the_types_of_the_parameters():
    app, received = many_types()
    assert invoke(app, ["first"], {}) == 0
    assert {**received, "app": None, "received": None} == {
        **{"text": None, "whole": 3, "real": None, "path": None, "kind": "a", "several": None, "flag": False},
        **{"app": None, "received": None},
    }
    line = "first x --whole 9 --real 1e-4 --path ./y --kind b --several p --several q --flag"
    assert invoke(app, line.split(), {}) == 0
    values = {
        "text": "x",
        "whole": 9,
        "real": 1e-4,
        "path": Path("y"),
        "kind": "b",
        "several": ["p", "q"],
        "flag": True,
    }
    assert {name: received[name] for name in values} == values


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--whole x", "--whole must be a whole number from 1 to 9, not 'x' (see `gpt2 first --help`)"),
        ("--whole 1.5", "--whole must be a whole number from 1 to 9, not '1.5'"),
        ("--whole 10", "--whole must be a whole number from 1 to 9, not '10'"),
        ("--real x", "--real must be a number, not 'x'"),
        ("--kind c", "--kind must be a or b, not 'c'"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(line, message):
    with pytest.raises(UsageError) as caught:
        invoke(many_types()[0], ["first", *line.split()], {})
    assert str(caught.value).startswith(message)


def test_types_and_defaults_are_known_to_the_help_page():
    command = typer.main.get_command(many_types()[0]).commands["first"]
    context = command.make_context("first", [])
    params = {param.name: param for param in command.params}
    types = {"whole": int, "real": float, "path": Path, "kind": Literal["a", "b"], "several": str, "flag": bool}
    assert {name: value_type(params[name]) for name in types} == types
    defaults = {"whole": "3", "real": "random", "path": "", "kind": "a", "several": "", "flag": ""}
    assert {name: default_in_words(params[name], context) for name in defaults} == defaults
