"""`gpt2 serve` as a process, with its output in files, and requests to it."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from tests.runner import PATIENCE, clean_environment, wait_until

ENDLESS = {"max_tokens": 300_000, "logit_bias": {"50256": -100}}
"""Fields of a request that does not end: the end of text cannot be generated."""


@dataclass
class ServedProcess:
    """A server on a port of this machine. `directory` has its output in the files `stdout` and `stderr`."""

    process: "subprocess.Popen[bytes]"
    directory: Path
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def stdout(self) -> str:
        return (self.directory / "stdout").read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return (self.directory / "stderr").read_text(encoding="utf-8")

    def events(self) -> list[dict[str, Any]]:
        """The complete lines of a log in JSON."""
        return [json.loads(line) for line in self.stdout.splitlines(keepends=True) if line.endswith("\n")]

    def open(self, path: str, body: dict[str, Any] | None = None, **headers: str) -> HTTPResponse:
        """Send a request, with a body if it is a POST. Raises HTTPError for another status than 200."""
        data = None if body is None else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"} | names)
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=PATIENCE)
        return answer

    def ask(self, path: str, body: dict[str, Any] | None = None, **headers: str) -> Any:
        """The JSON of an answer."""
        with self.open(path, body, **headers) as answer:
            return json.load(answer)

    def status(self, path: str, body: dict[str, Any] | None = None, **headers: str) -> int:
        """The HTTP status of an answer; 0 if nothing listens."""
        try:
            with self.open(path, body, **headers) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0

    def number(self, name: str) -> float:
        """A number of /metrics that has no labels."""
        with self.open("/metrics") as answer:
            text = answer.read().decode()
        [found] = re.findall(rf"^gpt2cli_{name} (\S+)$", text, re.MULTILINE)
        return float(found)

    def is_idle(self) -> bool:
        """Whether no slot is busy and no request waits."""
        return self.number("busy_slots") == self.number("waiting_requests") == 0

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
        return Path(f"/proc/{self.process.pid}/{name}")

    def end(self, signum: int) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(signum)
        return self.process.wait(PATIENCE)


@contextmanager
def started(
    directory: Path, *options: str, port: int = 0, code: str | None = None, **streams: int
) -> Iterator[ServedProcess]:
    """Start a server, which is killed at the end of the block if it runs. `code` replaces `python -m gpt2cli`.

    Its output goes to files in `directory`. `streams` are file descriptors that replace them, as `stderr=3`.
    """
    start = ["-m", "gpt2cli"] if code is None else ["-c", code]
    command = [sys.executable, *start, "serve", "--port", str(port), "--threads", "1", *options]
    with (directory / "stdout").open("wb") as stdout, (directory / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            **{"stdout": stdout, "stderr": stderr} | streams,
            env=clean_environment() | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )
    try:
        yield ServedProcess(process, directory, port)
    finally:
        process.kill()
        process.wait()


@contextmanager
def serving(directory: Path, *options: str, **how: Any) -> Iterator[ServedProcess]:
    """As `started`, when the server is ready. The options must not silence its notes, unless they contain --json."""
    with started(directory, *options, **how) as server:

        def address() -> re.Match[str] | None:
            assert server.process.poll() is None, server.stderr
            return re.search(r"http://[^ ]+:(\d+)", server.stdout if "--json" in options else server.stderr)

        server.port = int(wait_until(address)[1])
        yield server
