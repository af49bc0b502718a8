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
from gpt2cli.cli.help_pages import show_page
from gpt2cli.cli.interrupts import Terminated, received
from gpt2cli.cli.terminal import Console
from gpt2cli.cli.typer_internals import invoke
from gpt2cli.errors import ExitCode

START = """
gpt2 generate "Once upon a time" --model tiny  # continue a text
gpt2 chat --model tiny  # ask something; Ctrl-D leaves
gpt2 finetune --model tiny --data lessons --max-steps 20 --out mine.pt  # teach it more
gpt2 evaluate --model tiny --ckpt mine.pt --data lessons --split val  # is it better now?
"""
"""Commands for a first try. They need no network, because the model and the data come with the package."""
PANELS = {
    "Write": (generate, chat),
    "Train": (finetune, prepare_alpaca),
    "Measure": (evaluate, bench),
    "Files": (quantize, export, download_weights, runs, info),
}
"""The commands by purpose, as on the help page."""

app = App(
    name="gpt2",
    cls=CommandGroup,
    help="GPT-2 in your terminal: generate text, chat, fine-tune a model, measure it.",
    epilog=START,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, modules in PANELS.items():
    for module in modules:
        module.register(app)
        app.registered_commands[-1].rich_help_panel = panel


@app.callback()
def top(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from gpt2cli import __version__

        Console().write(f"gpt2cli {__version__}\n")
    elif ctx.invoked_subcommand is None:
        show_page(ctx.command, ctx)


def main(arguments: Sequence[str], environment: Environment) -> int:
    """Run a command line with these streams and variables. Returns the exit code.

    Before this, the caller runs `interrupts.install_handlers`, which turns signals into exceptions.
    """
    debug = "--debug" in takewhile(lambda argument: argument != "--", arguments)
    with use(replace(environment, debug=debug)):
        try:
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
