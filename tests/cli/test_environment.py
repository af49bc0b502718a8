"""The streams of a command, also closed or unread ones, and its exit code."""

import os
import subprocess
import sys

import pytest

from gpt2cli.cli.environment import Environment, current
from gpt2cli.cli.interrupts import Terminated
from gpt2cli.cli.main import main
from gpt2cli.errors import ExitCode, UsageError
from tests.conftest import Run
from tests.runner import Pipe, clean_environment

CODE = """
import sys
from gpt2cli import __main__
from gpt2cli.cli import typer_internals
from gpt2cli.cli.terminal import Console

def work(app, arguments, variables):
    for _ in range(3):
        Console().note("aside " * 3000)
        print("more than any buffer holds " * 3000, file=sys.stderr, flush=True)
    print("result")
    return 0

typer_internals.invoke = work
__main__.main()
"""


def run_with_stderr(stderr: int) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", CODE]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=clean_environment())


def test_work_goes_on_when_nobody_reads_stderr():
    reader, writer = os.pipe()
    os.close(reader)
    done = run_with_stderr(writer)
    os.close(writer)
    assert (done.returncode, done.stdout) == (0, "result\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")  # noqa: PTH110
def test_work_goes_on_when_stderr_is_a_full_disk():
    full = os.open("/dev/full", os.O_WRONLY)
    done = run_with_stderr(full)
    os.close(full)
    assert (done.returncode, done.stdout) == (0, "result\n")


def test_main_uses_the_streams_that_it_is_given_and_returns_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdin, sys.stdout, sys.stderr
    streams = Pipe(), Pipe(), Pipe()
    assert main(["--version"], Environment(*streams, {})) == ExitCode.DONE
    assert main(["generate", "--temp", "hot"], Environment(*streams, {})) == ExitCode.USAGE
    assert [stream.written()[:6] for stream in streams] == ["", "gpt2cl", "error:"]
    assert (sys.stdin, sys.stdout, sys.stderr) == before
    assert current().stdout is sys.stdout
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (Terminated(15), 143),
        (BrokenPipeError(), 141),
        (UsageError("no"), 2),
        (OSError(28, "full"), 6),
        (RuntimeError("a bug"), 1),
        (SystemExit(3), 3),
    ],
    ids=repr,
)
@pytest.mark.parametrize("step", ["help_pages.show_page", "typer_internals.invoke"])
def test_every_exception_is_an_exit_code(
    step: str, error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> int:
        raise error

    monkeypatch.setattr(f"gpt2cli.cli.{step}", fail)
    stderr = Pipe()
    assert main([], Environment(Pipe(), Pipe(), stderr, {})) == code
    assert stderr.written().count("error: ") == (code < 10 and code != 3)


def test_debug_shows_the_traceback_unless_it_is_part_of_a_prompt(run: Run) -> None:
    for args, shown in ((("--debug",), True), (("--", "--debug"), False)):
        done = run("generate", "--device", "abacus", *args)
        assert (done.returncode, "Traceback" in done.stderr) == (2, shown)
    assert "Traceback" not in run("generate", "--device", "abacus").stderr


def test_no_color_is_a_variable_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    told = []
    for variables in ({}, {"NO_COLOR": "1"}):
        stderr = Pipe(terminal=True)
        main(["generate", "--temp", "hot"], Environment(Pipe(), Pipe(), stderr, variables))
        told.append("\x1b" in stderr.written())
    assert told == [True, False]


RECOMPILING = """
from gpt2cli import __main__
from gpt2cli.cli import typer_internals

def work(app, arguments, variables):
    import logging, torch
    for module in ("_dynamo.convert_frame", "_inductor.utils"):
        logging.getLogger(f"torch.{module}").warning("hit the limit")
    return 0

typer_internals.invoke = work
__main__.main()
"""


@pytest.mark.parametrize(("variables", "shown"), [({}, False), ({"TORCH_LOGS": "dynamo"}, True)])
def test_warnings_of_the_compiler_are_shown_only_if_they_are_asked_for(variables: dict[str, str], shown: bool) -> None:
    environment = {name: value for name, value in clean_environment().items() if name != "TORCH_LOGS"} | variables
    done = subprocess.run([sys.executable, "-c", RECOMPILING], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "")
    assert ("hit the limit" in done.stderr) == shown
    assert shown or done.stderr == ""
