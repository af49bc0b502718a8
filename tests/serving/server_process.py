"""`gpt2 serve` as a process of this test: its start, its end, and what the system and /metrics say about it."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

PATIENCE = 240.0
"""Seconds after which a server is taken to hang."""


class ServerProcess:
    """A server on a free port of 127.0.0.1. In a `with` statement: it is ready at the beginning, and gone at the end.

    options   of the command, without --port
    """

    def __init__(self, options: Sequence[str]) -> None:
        self._command = [sys.executable, "-m", "gpt2cli", "serve", *options]
        self._closing = ExitStack()
        self.port = free_port()

    def __enter__(self) -> "ServerProcess":
        self._log = self._closing.enter_context(tempfile.TemporaryFile())
        command = [*self._command, "--port", str(self.port)]
        root = Path(__file__).parent.parent.parent
        environment = os.environ | {"PYTHONPATH": str(root)}
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, env=environment)
        try:
            self.wait(self._is_ready, "be ready")
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            self._closing.close()

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition is true. Raises RuntimeError if the server ends or takes too long."""
        limit = time.monotonic() + PATIENCE
        while not condition():
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended with {self._process.returncode}:\n{self.log()}")
            if time.monotonic() > limit:
                raise RuntimeError(f"the server did not {what} in {PATIENCE:.0f} s:\n{self.log()}")
            time.sleep(0.05)

    def log(self) -> str:
        """What the server has printed."""
        return os.pread(self._log.fileno(), 2**24, 0).decode(errors="replace")

    def number(self, name: str) -> float:
        """A number of /metrics that has no labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            text = answer.read().decode()
        found = re.search(rf"^gpt2cli_{name} (\S+)$", text, re.MULTILINE)
        if found is None:
            raise RuntimeError(f"/metrics does not have {name}:\n{text}")
        return float(found[1])

    def is_idle(self) -> bool:
        """Whether no slot is busy and no request waits."""
        return self.number("busy_slots") == 0 and self.number("waiting_requests") == 0

    def resident_bytes(self) -> dict[str, int]:
        """The resident memory, and the part of it that no file holds, as one holds weights that are mapped. Linux."""
        status = self._proc("status").read_text()
        sizes = {
            name: int(kilobytes) * 1024 for name, kilobytes in re.findall(r"^(\w+):\s+(\d+) kB$", status, re.MULTILINE)
        }
        return {"resident": sizes["VmRSS"], "anonymous": sizes["RssAnon"]}

    def open_files(self) -> list[str]:
        """What each file descriptor refers to, without the numbers of sockets and pipes. Linux."""
        found = []
        for link in self._proc("fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found.append(str(link.readlink()).partition(":[")[0])
        return sorted(found)

    def threads(self) -> int:
        """The number of threads. Linux."""
        return len(list(self._proc("task").iterdir()))

    def _proc(self, name: str) -> Path:
        return Path(f"/proc/{self._process.pid}/{name}")

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health"):
                return True
        except (urllib.error.URLError, ConnectionError):  # not yet listening, or 503
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
