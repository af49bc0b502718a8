"""The `gpt2` command: its subcommands, and the one place where an error becomes a line and an exit code."""

import signal
import sys
from types import FrameType
from typing import Annotated, Any

import typer

from gpt2cli.cli import download_weights, generate
from gpt2cli.cli.console import report_error
from gpt2cli.errors import GPT2Error, ResourceError, UsageError

INTERRUPTED, TERMINATED, CLOSED_PIPE = 130, 143, 141
CommandLineError: Any = typer.BadParameter.__base__  # typer keeps the name of it private

app = typer.Typer(
    name="gpt2",
    help="GPT-2 in your terminal: write, fine-tune, chat, understand.",
    invoke_without_command=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (generate, download_weights):
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


class Terminated(BaseException):
    """SIGTERM arrived: unwinds like Ctrl-C does, so that files and locks are let go in order."""


def terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated


def main() -> None:
    """Run the command line and leave with the exit code of the contract."""
    signal.signal(signal.SIGTERM, terminate)
    # a locale without UTF-8 shows what it lacks as escapes rather than failing
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = app(standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Terminated:
        code = TERMINATED
    except SystemExit as exit:  # typer's own, for a pipe that its reader closed
        code = CLOSED_PIPE if exit.code == 1 else exit.code
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        message, code = describe(error)
        report_error(message)
    sys.exit(code)


def describe(error: Exception) -> tuple[str, int]:
    """What to say about an error, and the exit code that goes with it."""
    if isinstance(error, GPT2Error):
        return str(error), error.exit_code
    if isinstance(error, CommandLineError):
        command = error.ctx.command_path if error.ctx else app.info.name
        return f"{error.format_message().rstrip('.')} (see `{command} --help`)", UsageError.exit_code
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{where}", ResourceError.exit_code
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error).lower():
        return "out of memory: try a smaller model, a lower --precision, or fewer samples", ResourceError.exit_code
    return f"{type(error).__name__}: {error} (this is a bug: --debug shows where)", 1
