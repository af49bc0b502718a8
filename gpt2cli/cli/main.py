"""Runs a command line, and turns exceptions into exit codes. Imports only what the command line needs."""

from collections.abc import Sequence
from itertools import takewhile

from gpt2cli import background
from gpt2cli.cli.environment import Environment, use
from gpt2cli.cli.interrupts import Terminated, received
from gpt2cli.cli.version import print_version
from gpt2cli.errors import ExitCode


def main(arguments: Sequence[str], environment: Environment) -> int:
    """Run a command line with these streams and variables. Returns the exit code.

    Before this, the caller runs `interrupts.install_handlers`, which turns signals into exceptions.
    """
    debug = "--debug" in takewhile(lambda argument: argument != "--", arguments)
    with use(environment.with_debug(debug)):
        try:
            code = _run(arguments, environment)
            environment.stdout.flush()
            background.finish()
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
            from gpt2cli.cli.error_messages import report

            signum = received()  # a library may have replaced the signal's exception by another one
            return report(error) if signum is None else 128 + signum
        finally:
            if received() is not None:
                background.abandon()


def _run(arguments: Sequence[str], environment: Environment) -> int:
    """The exit code of a command line. Lets all exceptions pass."""
    if list(arguments) == ["--version"]:  # without importing Typer
        print_version()
        return ExitCode.DONE
    from gpt2cli.cli.app import app
    from gpt2cli.cli.typer_internals import invoke

    return invoke(app, arguments, environment.variables)
