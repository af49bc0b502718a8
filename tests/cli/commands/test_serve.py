"""`gpt2 serve`: its checks, its log, and how it ends."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.cli import run_server
from gpt2cli.cli.commands.serve import key_in_shell
from gpt2cli.config import ServeConfig
from gpt2cli.hub.names import WEIGHTS
from gpt2cli.serving import http_server
from tests import models
from tests.conftest import Run
from tests.hub_server import Faults, HubServer
from tests.runner import PATIENCE, clean_environment, free_port, signal_when, wait_until
from tests.served_process import ENDLESS, ServedProcess, serving, started

MARKER = "Xylophonebadger"
"""A text that must not be in any log."""
COMPLETION = {"prompt": MARKER, "max_tokens": 5, "seed": 1}
MESSAGES = [{"role": "user", "content": MARKER}]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(models.save_hub_directory(models.small_model(), tmp_path_factory.mktemp("models") / "small"))


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--host", "0.0.0.0"], 2, "set a key with --api-key-file or GPT2CLI_API_KEY"),
        (["--host", "192.168.1.5"], 2, "set a key"),
        (["--port", "65536"], 2, "--port must be from 0 to 65,535, not 65536 (see `gpt2 serve --help`)"),
        (["--slots", "0"], 2, "--slots must be from 1 to 1,024, not 0"),
        (["--max-queue", "-1"], 2, "--max-queue must be 0 or more, not -1"),
        (["--cors-origin", "*"], 2, "would let any web page use the server"),
        (["--cors-origin", "localhost"], 2, "is not an origin"),
        (["--api-key", "abc"], 2, "did you mean --api-key-file?"),
        (["--parallel", "4"], 2, "did you mean --slots?"),
        (["--bind", "127.0.0.1"], 2, "did you mean --host?"),
        (["--api-key-file", "nope.txt"], 3, "nope.txt"),
        (["--api-key-file", "empty.txt"], 3, "empty.txt holds no key"),
        (["--api-key-file", "two.txt"], 3, "two.txt holds several lines"),
        (["--compile", "--device", "cpu"], 2, "--compile needs a CUDA device"),
    ],
)
def test_errors_are_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").touch()
    Path("two.txt").write_text(f"{MARKER}\nsecond\n")
    done = run("serve", "--model", "tiny", *(["--port", "0"] if "--port" not in options else []), *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert says in done.stderr and MARKER not in done.stderr


def test_a_port_in_use_is_told_before_the_model_is_loaded(run: Run, small: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(run_server, "open_model", None)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run("serve", "--model", small, "--port", str(port))
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.startswith(f"error: port {port} of 127.0.0.1 is in use: ") and "--port" in done.stderr


def test_too_many_slots_for_the_memory(run: Run, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = models.packed(models.small_model(), "fp16").new_cache(1, models.SMALL.block_size).nbytes
    for free, advice in (
        (int(3 * one / 0.9) + 5, "--slots 3 fits"),
        (one, "try a smaller model, or a lower --precision"),
    ):
        monkeypatch.setattr(run_server, "more_memory", lambda device, free=free: free)
        done = run("serve", "--model", small, "--port", "0", "--slots", "4")
        assert (done.returncode, done.stdout) == (6, "")
        assert re.fullmatch(rf"error: --slots 4 takes \S+ .B of memory .*: {advice}\n", done.stderr)


@pytest.mark.parametrize(
    ("model", "ckpt", "name"),
    [
        (None, None, "gpt2"),
        ("tiny", None, "tiny"),
        ("owner/name@v1", None, "owner/name@v1"),
        ("models/mine/", None, "mine"),
        ("models/mine/..", None, "models"),
        (None, "models/mine/a.pt", "a.pt"),
    ],
)
def test_a_model_is_served_without_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str | None, ckpt: str | None, name: str
) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert run_server.served_name(run_server.ModelSpec(model, ckpt)) == name


def test_requests_are_in_the_log_without_their_texts(home: Path, tmp_path: Path) -> None:
    with serving(tmp_path, "--model", "tiny") as server:
        first, example = wait_until(lambda: server.stderr.count("\n") >= 2 and server.stderr.splitlines()[:2])
        assert re.fullmatch(rf"serving tiny at {server.url} with 8 slots \(.* .B for .*\); Ctrl-C ends it", first)
        assert server.ask("/v1/completions", COMPLETION)["usage"]["completion_tokens"] == 5
        with server.open("/v1/chat/completions", {"messages": MESSAGES, "stream": True, "user": MARKER}) as answer:
            assert b"[DONE]" in answer.read()
        assert server.status(f"/{MARKER}?{MARKER}", None, X_Marker=MARKER) == 404
        assert server.status("/v1/completions", {"prompt": MARKER, MARKER: 1}) == 400
        assert server.status("/health") == 200
        assert b"gpt2cli_requests_total" in server.open("/metrics").read()
        code = server.end(signal.SIGTERM)
    assert code == 143
    assert MARKER not in server.stderr + server.stdout and server.stdout == ""
    lines = [line.partition("  ")[2] for line in server.stderr.splitlines()[2:]]
    tokens = r"\d+ -> \d+ tokens?, first after \d+\.\d\d s, [\d.]+ (tokens/)?s"
    assert re.fullmatch(rf"POST /v1/completions 200  {tokens}", lines[0])
    assert re.fullmatch(rf"POST /v1/chat/completions 200  {tokens}", lines[1])
    assert [line.split("  ")[0] for line in lines[2:]] == ["GET other 404", "POST /v1/completions 400"]
    assert "/v1/chat/completions" in example  # tiny has a prompt template


def test_the_example_works_with_the_key(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "my key.txt"
    file.write_text(f"{MARKER}\n")
    file.chmod(0o600)
    with serving(tmp_path, "--model", "tiny", "--api-key-file", str(file)) as server:
        example = wait_until(lambda: server.stderr.count("\n") == 2 and server.stderr.splitlines()[1])
        command = example.removeprefix("to try it: ")
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=PATIENCE, check=False)
        if done.returncode != 127:  # there is no curl
            assert json.loads(done.stdout)["choices"][0]["message"]["content"]
        assert server.status("/v1/models") == 401
        assert server.status("/v1/models", Authorization=f"Bearer {MARKER}") == 200
        assert server.status("/health") == 200
        server.end(signal.SIGTERM)
    assert MARKER not in server.stdout + server.stderr


def test_a_shell_finds_the_key_in_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within quotes, a shell would take `~` for a name."""
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, "/home/ann lee")
    found = key_in_shell(ServeConfig(api_key="secret"), Path("~/key.txt"))
    assert found == f"$(cat {shlex.quote(str(Path('/home/ann lee/key.txt')))})"


def test_a_log_for_programs(home: Path, small: str, tmp_path: Path) -> None:
    with serving(tmp_path, "--model", small, "--json", "--quiet", "--slots", "2") as server:
        server.ask("/v1/completions", COMPLETION)
        assert server.status("/metrics") == 200
        wait_until(lambda: len(server.events()) >= 3)
        code = server.end(signal.SIGINT)
    assert (code, server.stderr) == (130, "")
    ready, completion, metrics, ending = server.events()
    assert (ready["kind"], ready["url"], ready["model"], ready["slots"]) == ("ready", server.url, "small", 2)
    assert ready["kv_bytes"] > 0
    assert completion["kind"] == "request" and completion["time"].endswith("+00:00")
    assert [completion[name] for name in ("method", "path", "status")] == ["POST", "/v1/completions", 200]
    assert completion["prompt_tokens"] > 0 and completion["new_tokens"] == 5
    assert 0 < completion["first_text_s"] <= completion["seconds"]
    assert (metrics["path"], metrics["prompt_tokens"]) == ("/metrics", None)
    assert (ending["kind"], ending["busy_slots"], ending["waiting_requests"]) == ("ending", 0, 0)
    assert MARKER not in server.stdout


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_an_idle_server(home: Path, small: str, tmp_path: Path, name: str, code: int) -> None:
    if not hasattr(signal, name):
        pytest.skip("Windows has no SIGHUP")
    with serving(tmp_path, "--model", small) as server:
        assert server.end(getattr(signal, name)) == code
    assert server.stderr.count("\n") == 2 and "ending" not in server.stderr


def test_a_server_on_a_cpu_does_not_import_torch(home: Path, tmp_path: Path) -> None:
    code = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); from gpt2cli.__main__ import main; main()"
    with serving(tmp_path, "--model", "tiny", "--device", "cpu", code=code) as server:
        server.ask("/v1/completions", COMPLETION)
        server.end(signal.SIGTERM)
    imported = server.stdout.split()
    assert "uvicorn" in imported and not {"torch", "safetensors", "huggingface_hub", "pydantic"} & set(imported)


class Stream:
    """A stream of a text, which a thread reads."""

    def __init__(self, server: ServedProcess, **fields: Any) -> None:
        self.answer = server.open("/v1/completions", {"prompt": MARKER, "stream": True, **fields})
        assert self.answer.readline().startswith(b"data: ")
        self.lines: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            self.lines.extend(iter(self.answer.readline, b""))
        except (OSError, ValueError):  # the connection was cut
            self.lines.append(b"cut")

    def wait(self) -> list[bytes]:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return [line for line in self.lines if line.strip()]


def test_a_running_request_is_finished_after_a_signal(home: Path, tmp_path: Path) -> None:
    with serving(tmp_path, "--model", "tiny", code=with_grace(PATIENCE)) as server:
        stream = Stream(server, **ENDLESS | {"max_tokens": 120})
        server.process.send_signal(signal.SIGTERM)
        lines = stream.wait()
        assert server.process.wait(PATIENCE) == 143
    assert lines[-1].strip() == b"data: [DONE]" and b'"finish_reason":"length"' in lines[-2].replace(b" ", b"")


def with_grace(seconds: float) -> str:
    """The command, with another time for running requests after the first signal."""
    return (
        f"from gpt2cli.cli import run_server; run_server.GRACE = {seconds}; from gpt2cli.__main__ import main; main()"
    )


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_endless_request_is_cut_in_the_end(home: Path, tmp_path: Path, name: str, code: int) -> None:
    with serving(tmp_path, "--model", "tiny", code=with_grace(1)) as server:
        stream = Stream(server, **ENDLESS)
        assert server.end(getattr(signal, name)) == code
        lines = stream.wait()
    assert lines[-1] == b"cut" or b"error" in lines[-1], lines[-1]
    assert "ending: 1 text gets up to 1 seconds; press Ctrl-C again to end at once" in server.stderr
    assert MARKER not in server.stderr


def test_after_the_first_signal_no_request_is_accepted_and_the_second_cuts(home: Path, tmp_path: Path) -> None:
    with serving(tmp_path, "--model", "tiny", code=with_grace(10 * PATIENCE)) as server:
        stream = Stream(server, **ENDLESS)
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: server.status("/health") == 503)
        assert server.status("/v1/completions", COMPLETION) == 503
        assert server.end(signal.SIGINT) == 130
        stream.wait()
    assert "ending: 1 text gets up to" in server.stderr


def test_a_client_that_never_reads_does_not_keep_it(home: Path, tmp_path: Path) -> None:
    body = json.dumps({"prompt": "x", "stream": True, "logprobs": 5, "n": 8, **ENDLESS, "max_tokens": 4000}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    with serving(tmp_path, "--model", "tiny", code=with_grace(1)) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        wait_until(lambda: server.number("busy_slots") == 8)
        assert server.end(signal.SIGTERM) == 143


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_a_download(hub: HubServer, tmp_path: Path, signum: int, code: int) -> None:
    hub.faults[WEIGHTS] = Faults(hang_at=1000)
    port = free_port()
    with started(tmp_path, port=port) as server:
        wait_until(lambda: hub.requests("GET", WEIGHTS))
        assert server.status("/health") == 503  # it answers already
        assert server.status("/v1/completions", COMPLETION) == 503
        assert server.end(signum) == code
    assert "Traceback" not in server.stderr and "error" not in server.stderr


def test_an_error_in_the_thread_of_http_ends_it(run: Run, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: Any, sockets: Any = None) -> None:
        raise RuntimeError("no loop")

    monkeypatch.setattr(http_server.Server, "startup", fail)
    done = run("serve", "--model", small, "--port", "0")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: unexpected RuntimeError: no loop")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows reports a closed pipe in another way")
def test_it_ends_when_nobody_reads_its_log(home: Path, small: str) -> None:
    command = [sys.executable, "-m", "gpt2cli", "serve", "--model", small, "--port", "0", "--json", "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment())
    assert process.stdout and process.stderr
    try:
        ready = json.loads(process.stdout.readline())
        process.stdout.close()
        server = ServedProcess(process, Path(), int(ready["url"].rpartition(":")[2]))
        server.status("/v1/models")
        assert process.wait(PATIENCE) == 141
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@contextmanager
def full_pipe() -> Iterator[int]:
    """A pipe that nobody reads: the next write to it takes for ever."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 1000)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x")
    os.set_blocking(writing, True)
    try:
        yield writing
    finally:
        os.close(writing)
        os.close(reading)


@pytest.mark.skipif(not hasattr(os, "set_blocking") or sys.platform == "win32", reason="Windows has other pipes")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("signals", [1, 2])
def test_a_log_that_nobody_reads_stops_neither_the_server_nor_its_end(
    home: Path, small: str, tmp_path: Path, stream: str, signals: int
) -> None:
    options = ["--model", small, *(["--json"] if stream == "stdout" else [])]
    how: dict[str, Any] = {"port": free_port(), "code": with_grace(10 * PATIENCE if signals == 2 else 0)}
    with full_pipe() as pipe, started(tmp_path, *options, **how, **{stream: pipe}) as server:
        wait_until(lambda: server.status("/health") == 200)
        assert [server.status("/v1/models") for _ in range(20)] == [200] * 20
        stream_of_text = Stream(server, **ENDLESS)
        for _ in range(signals - 1):
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: server.status("/health") == 503)
        assert server.end(signal.SIGTERM) == 143
        stream_of_text.wait()


def test_in_a_process_that_goes_on_the_server_leaves_nothing(run: Run, small: str) -> None:
    port, threads = free_port(), threading.active_count()
    server = ServedProcess(None, Path(), port)  # type: ignore[arg-type]
    with signal_when(lambda: server.status("/health") == 200, signal.SIGINT):
        done = run("serve", "--model", small, "--port", str(port))
    assert done.returncode == 130
    wait_until(lambda: threading.active_count() <= threads)
    assert server.status("/health") == 0
