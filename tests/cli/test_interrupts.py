"""Signals while something is worth saving."""

import signal
from contextlib import suppress

import pytest

from gpt2cli.cli import interrupts as module
from gpt2cli.cli.interrupts import Terminated, held_back, terminate


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


def test_afterwards_one_leaves_as_the_signal_would_have():
    with held_back(lambda: None) as interrupts:
        interrupts.raise_received()  # none has come
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Terminated):
        interrupts.raise_received()


def test_a_sigterm_that_somebody_else_caught_is_not_forgotten(monkeypatch):
    monkeypatch.setattr(module, "_terminated", False)
    with suppress(BaseException):
        terminate(signal.SIGTERM, None)
    with pytest.raises(Terminated), held_back(lambda: None):
        raise AssertionError("it goes on")
