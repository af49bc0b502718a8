"""The `gpt2` command: its subcommands, and the one place where an error becomes a line and an exit code."""

import os
import sys
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
    prepare_alpaca,
    quantize,
)
from gpt2cli.cli.error_messages import report
from gpt2cli.cli.interrupts import Terminated, install_handlers, received, remove_handlers
from gpt2cli.cli.streams import close_streams, open_streams

INTERRUPTED, CLOSED_PIPE = 130, 141

app = App(
    name="gpt2",
    cls=CommandGroup,
    help="GPT-2 in your terminal: let it write, and fine-tune it.",
    invoke_without_command=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (generate, prepare_alpaca, finetune, chat, evaluate, quantize, export, bench, download_weights):
    module.register(app)


@app.callback()
def top(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        from gpt2cli import __version__

        print(f"gpt2cli {__version__}")
    elif ctx.invoked_subcommand is None:
        print(ctx.get_help())


def main() -> None:
    """Run the command line and leave with the exit code of the contract."""
    try:
        install_handlers()
        open_streams()
        if os.environ.get("NO_COLOR"):
            from typer import rich_utils

            rich_utils.COLOR_SYSTEM = None  # for the pages of --help, where rich would leave bold and dim
        code = app(standalone_mode=False) or 0
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Terminated as signal:
        code = 128 + signal.signum  # as shells have it
    except SystemExit as exit:  # typer's own, for a pipe that its reader closed
        code = CLOSED_PIPE if exit.code == 1 else exit.code
    except BrokenPipeError:
        code = CLOSED_PIPE
    except Exception as error:
        signum = received()
        code = report(error) if signum is None else 128 + signum  # a library made another error of the signal
    remove_handlers()
    close_streams()
    sys.exit(code)
