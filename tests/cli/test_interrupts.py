"""Signals while something is worth saving."""

import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from gpt2cli.cli import interrupts as module
from gpt2cli.cli.interrupts import Terminated, forget_ctrl_c, held_back, received, unwind
from tests.runner import clean_environment

needs_sighup = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_the_first_signal_is_noted_and_a_second_leaves_at_once(number, raised):
    before, told = signal.getsignal(number), []
    with pytest.raises(raised), held_back(lambda: told.append("ending")) as interrupts:
        assert not interrupts
        signal.raise_signal(number)
        assert interrupts.received == number
        assert told == ["ending"]
        signal.raise_signal(number)
        raise AssertionError("still here")
    assert told == ["ending"]
    assert signal.getsignal(number) == before


@needs_sighup
def test_a_closing_terminal_which_says_so_twice_asks_once():
    with pytest.raises(Terminated) as raised, held_back(lambda: None) as interrupts:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert interrupts.received == signal.SIGHUP
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("still here")
    assert raised.value.signum == signal.SIGTERM


@needs_sighup
def test_sighup_stays_ignored_where_it_was():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with held_back(lambda: None) as interrupts:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupts
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def process_of(work: str, before: str = "", after: str = "") -> "subprocess.CompletedProcess[str]":
    """The command as a process, which does `work` instead of any command. `before` and `after` surround its `main`."""
    code = [
        "import signal",
        before,
        "from gpt2cli import __main__",
        "from gpt2cli.cli import environment, typer_internals",
        "def invoke(app, arguments, variables):",
        *(f"    {line}" for line in work.splitlines()),
        "    return 0",
        f"typer_internals.invoke = invoke\n{after}\n__main__.main()",
    ]
    command = [sys.executable, "-c", "\n".join(code)]
    return subprocess.run(command, capture_output=True, text=True, env=clean_environment())


def main_that_gets(name: str, ignored: bool = False) -> "subprocess.CompletedProcess[str]":
    """The command line, whose work is to receive a signal; on stdout, how it went on."""
    work = f"try: signal.raise_signal(signal.{name}); print('went on')\nfinally: print('unwound')"
    return process_of(work, f"signal.signal(signal.{name}, signal.SIG_IGN)" if ignored else "")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_unwinds_the_command_and_is_its_exit_code(name, code):
    if not hasattr(signal, name):
        pytest.skip("Windows has no SIGHUP")
    done = main_that_gets(name)
    assert (done.returncode, done.stdout, done.stderr) == (code, "unwound\n", "")


def test_a_signal_after_the_work_leaves_no_traceback():
    closing = "environment.Environment.close = lambda self: signal.raise_signal(signal.SIGTERM)"
    done = process_of("pass", after=closing)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_that_a_library_took_for_another_error_is_still_the_exit_code(name, code):
    caught = "except BaseException: raise RuntimeError('this file is damaged') from None"
    done = process_of(f"try: signal.raise_signal(signal.{name})\n{caught}")
    assert (done.returncode, done.stderr) == (code, "")


def test_a_ctrl_c_that_was_heeded_is_forgotten_and_a_sigterm_is_not(monkeypatch):
    monkeypatch.setattr(module, "_unwound", module.Interrupts())
    for number, kept in ((signal.SIGINT, None), (signal.SIGTERM, signal.SIGTERM)):
        with suppress(BaseException):
            unwind(number, None)
        assert received() == number
        forget_ctrl_c()
        assert received() == kept


@needs_sighup
@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT"])
def test_a_command_under_nohup_survives_its_terminal(name):
    done = main_that_gets(name, ignored=True)
    assert (done.returncode, done.stdout) == (0, "went on\nunwound\n")


def test_afterwards_one_leaves_as_the_signal_would_have():
    with held_back(lambda: None) as interrupts:
        interrupts.raise_received()  # none has come
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Terminated):
        interrupts.raise_received()


def test_a_sigterm_that_somebody_else_caught_is_not_forgotten(monkeypatch):
    monkeypatch.setattr(module, "_unwound", module.Interrupts())
    with suppress(BaseException):
        unwind(signal.SIGTERM, None)
    with pytest.raises(Terminated), held_back(lambda: None):
        raise AssertionError("it goes on")
