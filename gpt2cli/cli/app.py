"""The `gpt2` command: its subcommands, and the exit codes of exceptions."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Annotated

import typer

from gpt2cli.cli.command_line import App, CommandGroup
from gpt2cli.cli.commands import (
    bench,
    chat,
    download_weights,
    evaluate,
    export,
    finetune,
    generate,
    info,
    prepare_alpaca,
    quantize,
    runs,
)
from gpt2cli.cli.environment import Environment, use
from gpt2cli.cli.error_messages import report
from gpt2cli.cli.interrupts import Terminated, received
from gpt2cli.cli.typer_internals import help_in_color, invoke
from gpt2cli.errors import ExitCode

app = App(
    name="gpt2",
    cls=CommandGroup,
    help="GPT-2 in your terminal: generate text, fine-tune it, chat with it, measure it.",
    invoke_without_command=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    generate,
    prepare_alpaca,
    finetune,
    chat,
    evaluate,
    quantize,
    export,
    bench,
    download_weights,
    runs,
    info,
):
    module.register(app)


@app.callback()
def top(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from gpt2cli import __version__

        print(f"gpt2cli {__version__}")
    elif ctx.invoked_subcommand is None:
        print(ctx.get_help())


def main(arguments: Sequence[str], environment: Environment) -> int:
    """Run a command line with these streams and variables. Returns the exit code.

    Before this, the caller runs `interrupts.install_handlers`, which turns signals into exceptions.
    """
    debug = "--debug" in takewhile(lambda argument: argument != "--", arguments)
    with use(replace(environment, debug=debug)):
        try:
            with help_in_color(not environment.variables.get("NO_COLOR")):  # imports a library, which takes time
                code = invoke(app, arguments, environment.variables)
            environment.stdout.flush()
            return code
        except KeyboardInterrupt:
            return ExitCode.INTERRUPTED
        except Terminated as signal:
            return 128 + signal.signum  # as in shells
        except SystemExit as leaving:  # shell completion
            return leaving.code if isinstance(leaving.code, int) else 1
        except BrokenPipeError:
            return ExitCode.CLOSED_PIPE
        except Exception as error:
            signum = received()  # a library may have replaced the signal's exception by another one
            return report(error) if signum is None else 128 + signum
