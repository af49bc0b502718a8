"""What typer_internals.py says of Typer is true of the installed version."""

from typing import Annotated

import pytest
import typer

from gpt2cli.cli.typer_internals import CommandLineError, help_in_color, invoke
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
    with help_in_color(False):
        assert "\x1b" not in screen("--help", NO_COLOR="1")
    assert "\x1b[1m" in screen("--help")
