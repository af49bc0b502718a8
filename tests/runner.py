"""The `gpt2` command for tests: in this process, or in one that starts for it."""

import io
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

from gpt2cli.cli import interrupts
from gpt2cli.cli.environment import Environment
from gpt2cli.cli.main import main
from gpt2cli.cli.views import spinner

PATIENCE = 240.0
"""Seconds after which a process that a test waits for is taken to hang; a busy machine needs ten times its usual."""
NOT_INHERITED = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"),
    *("NO_COLOR", "FORCE_COLOR"),
)
Completed = subprocess.CompletedProcess[str]


def wait_until(condition: Callable[[], Any]) -> Any:
    """The first true value of a condition. Fails after PATIENCE."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def clean_environment() -> dict[str, str]:
    """This process's environment without what would change what the command does or how it looks."""
    return {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}


class Pipe(io.TextIOWrapper):
    """A stream of a command, in memory. It is a terminal only if it is told to be."""

    def __init__(self, content: bytes = b"", encoding: str = "utf-8", terminal: bool = False) -> None:
        super().__init__(io.BytesIO(content), encoding, "backslashreplace", newline="", write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def written(self) -> str:
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


def run_here(
    *args: str, input: str | bytes | None = None, env: dict[str, str] | None = None, encoding: str = "utf-8"
) -> Completed:
    """Run the command in this process, with pipes for streams. `env` adds to the environment.

    Libraries that read the environment when they are imported do not see `env`: see `run_process`.
    """
    stdin = Pipe(input.encode() if isinstance(input, str) else input or b"")
    stdout, stderr = Pipe(encoding=encoding), Pipe(encoding=encoding)
    code = call(args, Environment(stdin, stdout, stderr, os.environ), env or {})
    return Completed(args, code, stdout.written(), stderr.written())


def screen(*args: str, **env: str) -> str:
    """What the command shows on a terminal of 80 columns, which all its streams are. Runs in this process.

    It shows no spinner, because only a slow machine shows one.
    """
    shown = Pipe(terminal=True)
    with patch.object(spinner, "SECONDS_BEFORE_SPINNER", PATIENCE):
        call(args, Environment(shown, shown, shown, os.environ), {"TERM": "xterm-256color", "COLUMNS": "80"} | env)
    return shown.written()


def call(args: Sequence[str], environment: Environment, variables: dict[str, str]) -> int:
    """The exit code of the command with these streams. `variables` adds to the environment."""
    with patch.dict(os.environ, clean_environment() | variables, clear=True), process_left_alone():
        return int(main(args, environment))


def run_process(
    *args: str, input: str | None = None, env: dict[str, str] | None = None, timeout: float = PATIENCE
) -> Completed:
    """As `run_here`, in a process of its own: for signals, streams, locales, limits and what is read at the start."""
    return subprocess.run(
        [sys.executable, "-m", "gpt2cli", *args],
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=clean_environment() | (env or {}),
        timeout=timeout,
    )


@contextmanager
def process_left_alone() -> Iterator[None]:
    """Undo what a command changes in the process that it runs in."""
    import torch  # which reads OMP_NUM_THREADS: conftest.py sets it

    handlers = {number: signal.getsignal(number) for number in interrupts.ENDING}
    threads, states = torch.get_num_threads(), (random.getstate(), torch.get_rng_state())
    level = logging.getLogger("huggingface_hub").level
    try:
        with warnings.catch_warnings(), patch.object(interrupts, "_unwound", interrupts.Interrupts()):
            yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        torch.set_num_threads(threads)
        random.setstate(states[0])
        torch.set_rng_state(states[1])
        logging.getLogger("huggingface_hub").setLevel(level)


@contextmanager
def little_room(size: int) -> Iterator[None]:
    """As on a disk that is nearly full: no file can grow beyond so many bytes."""
    import resource  # which Windows does not have

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def signal_when(condition: Callable[[], bool], signum: int) -> Iterator[None]:
    """Send this process a signal as soon as the condition holds, while a command runs in it as `gpt2` would run it."""
    over = threading.Event()

    def wait_and_send() -> None:
        while not over.wait(0.002):
            with suppress(OSError, ValueError):  # a file that is not there yet, or not yet whole
                if condition():
                    os.kill(os.getpid(), signum)
                    return

    thread = threading.Thread(target=wait_and_send)
    with process_left_alone():
        interrupts.install_handlers()
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
