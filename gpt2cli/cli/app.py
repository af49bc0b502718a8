"""The `gpt2` command: its subcommands, and the one place where an error becomes a line and an exit code."""

import os
import sys
import traceback
from contextlib import suppress
from itertools import takewhile
from typing import Annotated, Any

import typer

from gpt2cli.cli import bench, chat, download_weights, evaluate, export, finetune, generate, prepare_alpaca, quantize
from gpt2cli.cli.console import report_error, visible
from gpt2cli.cli.interrupts import Terminated, install_handlers, terminated
from gpt2cli.cli.streams import close_streams, open_streams
from gpt2cli.errors import GPT2Error, ResourceError, UsageError

INTERRUPTED, CLOSED_PIPE = 130, 141
CommandLineError: Any = typer.BadParameter.__base__  # typer keeps the name of it private

app = typer.Typer(
    name="gpt2",
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
    install_handlers()
    open_streams()
    if os.environ.get("NO_COLOR"):
        from typer import rich_utils

        rich_utils.COLOR_SYSTEM = None  # for the pages of --help, where rich would leave bold and dim
    try:
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
        signum = terminated()
        code = show_error(error) if signum is None else 128 + signum  # a library made another error of the signal
    close_streams()
    sys.exit(code)


def show_error(error: Exception) -> int:
    """Show the error that is being handled as one line, and with --debug where it was raised. The exit code."""
    message, code = describe(error)
    with suppress(OSError, SystemExit):  # where nobody can read it, the code still says it
        if "--debug" in takewhile(lambda argument: argument != "--", sys.argv):
            sys.stderr.write(visible(traceback.format_exc()))
        report_error(message)
    return code


def describe(error: Exception) -> tuple[str, int]:
    """What to say about an error, and the exit code that goes with it."""
    if isinstance(error, GPT2Error):
        return str(error), error.exit_code
    if isinstance(error, CommandLineError):
        command = error.ctx.command_path if error.ctx else app.info.name
        hint = f"see `{command} --help`"
        if type(error).__name__ == "NoSuchOption" and error.ctx and error.ctx.info_name == "generate":
            hint += ", or put `--` before a prompt that begins with -"
        return f"{error.format_message().rstrip('.')} ({hint})", UsageError.exit_code
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{where}", ResourceError.exit_code
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error).lower():
        return "out of memory: try a smaller model, a lower --precision, or fewer samples", ResourceError.exit_code
    return f"{type(error).__name__}: {error} (this is a bug: --debug shows where)", 1
