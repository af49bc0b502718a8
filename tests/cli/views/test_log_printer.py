"""Printing a log that is not always read."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from gpt2cli.cli.environment import Environment, use
from gpt2cli.cli.terminal import Console
from gpt2cli.cli.views import log_printer
from gpt2cli.cli.views.log_printer import LogPrinter
from tests.runner import PATIENCE, Pipe, wait_until


class SlowPipe(Pipe):
    """Nobody reads it until `read` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.read = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.waits.set()
        assert self.read.wait(PATIENCE)
        return super().write(text)


class ClosedPipe(Pipe):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def printer(
    stdout: Pipe, stderr: Pipe, json: bool = False, fail: Callable[[Exception], Any] = pytest.fail
) -> LogPrinter:
    with use(Environment(Pipe(), stdout, stderr, {})):
        return LogPrinter(Console(), json, fail)


@pytest.mark.parametrize("is_json", [False, True])
def test_lines_that_cannot_wait_are_counted(monkeypatch: pytest.MonkeyPatch, is_json: bool) -> None:
    monkeypatch.setattr(log_printer, "MOST_WAITING", 5)
    monkeypatch.setattr(log_printer, "LONGEST_END", PATIENCE)
    stdout, stderr = (SlowPipe(), Pipe()) if is_json else (Pipe(), SlowPipe())
    slow: Any = stdout if is_json else stderr
    with printer(stdout, stderr, is_json) as log:

        def line(number: int) -> None:
            if is_json:
                log.event("request", number=number)
            else:
                log.note(f"line {number}")

        def last() -> str:
            return '"number": 5' if is_json else "line 5"

        line(0)
        assert slow.waits.wait(PATIENCE)
        for number in range(1, 10):
            line(number)
        slow.read.set()
        wait_until(lambda: last() in slow.written())
        line(10)
    if is_json:
        events = [json.loads(line) for line in stdout.written().splitlines()]
        assert [event.get("number") for event in events] == [0, 1, 2, 3, 4, 5, None, 10]
        assert (events[-2]["kind"], events[-2]["lines"]) == ("left_out", 4)
    assert stderr.written().splitlines() == [
        *([] if is_json else [f"line {number}" for number in range(6)]),
        "4 lines of the log were left out, because nobody read it",
        *([] if is_json else ["line 10"]),
    ]


def test_the_end_does_not_wait_for_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_printer, "LONGEST_END", 0.01)
    slow = SlowPipe()
    with printer(Pipe(), slow) as log:
        log.note("line")
    assert slow.written() == ""
    slow.read.set()


def test_a_stdout_that_cannot_be_written_is_told_once() -> None:
    errors: list[Exception] = []
    with printer(ClosedPipe(), Pipe(), True, errors.append) as log:
        log.event("ready")
        log.event("request")
    assert [type(error) for error in errors] == [BrokenPipeError]
