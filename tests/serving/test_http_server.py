"""Faults of clients, over real sockets. After each one the server still answers, and holds nothing of it."""

import errno
import json
import os
import random
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from gpt2cli.config import ServeConfig
from gpt2cli.errors import ExitCode, GPT2Error
from gpt2cli.serving.connection import Limits
from gpt2cli.serving.http_server import bind, running
from gpt2cli.serving.service import RequestRecord, Service
from tests.runner import wait_until
from tests.serving.small_server import PATIENCE, SmallServer, head, post, received, small_server

SHORT = Limits(sending=0.3, idle=1, stalled=0.3, ending=1)
PING = head("GET", "/ping")
LAST_PING = head("GET", "/ping", Connection="close")


@pytest.fixture(scope="module")
def server() -> Iterator[SmallServer]:
    with small_server() as running_server:
        yield running_server


@pytest.fixture(scope="module")
def hasty() -> Iterator[SmallServer]:
    """A server with short time limits."""
    with small_server(limits=SHORT, longest_time=0.3) as running_server:
        yield running_server


def status(answer: bytes) -> int:
    return int(answer.split()[1])


def error(answer: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    return found


def answer_on(client: socket.socket) -> bytes:
    """One answer on a connection that stays open."""
    found = b""
    while b"\r\n\r\n" not in found:
        piece = client.recv(65536)
        assert piece, "the connection has ended"
        found += piece
    start, _, body = found.partition(b"\r\n\r\n")
    length = int(start.lower().partition(b"content-length: ")[2].split()[0])
    while len(body) < length:
        body += client.recv(65536)
    return start + b"\r\n\r\n" + body


def check_reported(server: SmallServer, answer: bytes) -> None:
    """The log has the answer to what is not HTTP, with its reason."""

    def last() -> RequestRecord:
        return next(record for record in reversed(server.records) if record.path == "other")

    wait_until(lambda: last().hint == error(answer)["message"])
    assert (last().method, last().status) == ("other", status(answer)) and 0 <= last().seconds < PATIENCE


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\r\n\r\n\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX\xff: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
def test_garbage_instead_of_http(server: SmallServer, garbage: bytes) -> None:
    answer = server.exchange(garbage)
    assert status(answer) == 400 and error(answer)["type"] == "invalid_request_error"
    assert ("this is TLS" in error(answer)["message"]) == garbage.startswith(b"\x16\x03")
    check_reported(server, answer)
    server.check_idle()


def test_garbage_in_place_of_a_chunk(server: SmallServer) -> None:
    start = head("POST", "/echo", Content_Type="application/json", Transfer_Encoding="chunked")
    assert status(server.exchange(start, b"xyz\r\n")) == 400
    server.check_idle()


def test_random_changes_of_requests(hasty: SmallServer) -> None:
    rng = random.Random(0)
    chunks = (
        head("POST", "/echo", Content_Type="application/json", Transfer_Encoding="chunked") + b"2\r\n{}\r\n0\r\n\r\n"
    )
    requests = [PING, post(b"{}"), post(b"{}", Connection="keep-alive", Expect="100-continue"), chunks]
    requests += [head("CONNECT", "localhost:80"), head("GET", "/ping", Connection="upgrade", Upgrade="websocket")]
    for _ in range(300):
        data = bytearray(b"".join(rng.choices(requests, k=3)))
        for _ in range(3):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(20)] = rng.choice([b"", b"\r\n", b"\0", b":", b"\xff", bytes(data[:at])])
        with hasty.connect() as client, suppress(OSError):
            client.sendall(data)
            client.settimeout(0.01)
            client.recv(1000)
    hasty.check_idle()
    assert hasty.server.failure is None


def test_a_long_head(server: SmallServer) -> None:
    answer = server.exchange(PING[:-2], *[b"X-Long: " + b"x" * 1000 + b"\r\n"] * 20)
    assert status(answer) == 431 and "16,384 bytes" in error(answer)["message"]
    check_reported(server, answer)
    server.check_idle()


def test_half_a_head_and_silence(hasty: SmallServer) -> None:
    answer = hasty.exchange(PING[:20])
    assert status(answer) == 408 and "0.3 seconds" in error(answer)["message"]
    check_reported(hasty, answer)
    hasty.check_idle()


def test_a_head_of_one_byte_now_and_then(hasty: SmallServer) -> None:
    with hasty.connect() as client:
        client.setblocking(False)
        sent = 0
        while sent < len(PING) - 1:
            with suppress(BlockingIOError):
                if answer := client.recv(1000):
                    break
            client.send(PING[sent : sent + 1])
            sent += 1
            time.sleep(0.05)
    assert sent < len(PING) - 1 and status(answer) == 408
    hasty.check_idle()


def test_silence(hasty: SmallServer) -> None:
    assert hasty.exchange() == b""
    hasty.check_idle()


def test_half_a_body_and_silence(hasty: SmallServer) -> None:
    answer = hasty.exchange(post(b'{"a": 1}')[:-1])
    assert status(answer) == 408 and "the body did not arrive" in error(answer)["message"]
    hasty.check_idle()


def test_a_body_of_one_byte_now_and_then(hasty: SmallServer) -> None:
    with hasty.connect() as client:
        client.sendall(head("POST", "/echo", Content_Type="application/json", Content_Length="100000"))
        answer, end = b"", time.monotonic() + PATIENCE
        client.settimeout(0.02)
        with suppress(ConnectionError):
            while time.monotonic() < end:  # the server ends it
                client.send(b" ")
                with suppress(TimeoutError):
                    answer += client.recv(1000)
    assert status(answer) == 408 and time.monotonic() < end
    hasty.check_idle()


@pytest.mark.parametrize("length", [0, 20, 80, -3])
def test_part_of_a_request_and_a_close(server: SmallServer, length: int) -> None:
    server.records.clear()
    with server.connect() as client:
        client.sendall(post(b'{"a": 1}')[:length])
    server.check_idle()
    assert {record.status for record in server.records} <= {200, 499}


def test_a_reset(server: SmallServer) -> None:
    with server.connect() as client:
        client.sendall(post(b'{"a": 1}')[:-1])
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.check_idle()


@pytest.mark.parametrize("keep", ["close", "keep-alive"])
def test_a_body_of_50_mb_is_refused_without_a_reset(server: SmallServer, keep: str) -> None:
    piece = b"x" * 2**20
    headers = {"Content_Type": "application/json", "Content_Length": str(50 * 2**20), "Connection": keep}
    tracemalloc.start()
    with server.connect() as client:
        client.sendall(head("POST", "/echo", **headers))
        for _ in range(50):
            client.sendall(piece)
        answer = answer_on(client)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert status(answer) == 413 and "more than 100,000 bytes" in error(answer)["message"]
    assert most < 5 * 2**20
    server.check_idle()


def test_a_body_that_is_too_large_to_be_read_at_all(server: SmallServer) -> None:
    for headers in ({"Content_Length": str(10**12)}, {"Content_Length": "200000", "Expect": "100-continue"}):
        answer = server.exchange(head("POST", "/echo", Content_Type="application/json", Connection="close", **headers))
        assert status(answer) == 413
    server.check_idle()


def test_the_rest_of_a_body_after_its_answer(hasty: SmallServer) -> None:
    """A connection does not stay open because a client goes on to send what nobody reads."""
    with hasty.connect() as client:
        client.sendall(head("POST", "/nowhere", Content_Length=str(10**12)))
        with suppress(ConnectionError):
            while True:
                client.sendall(b"x" * 1000)
                time.sleep(0.01)
    hasty.check_idle()


def test_a_body_that_nobody_reads_does_not_end_the_connection(server: SmallServer) -> None:
    body = b"x" * 300_000
    answer = server.exchange(head("POST", "/nowhere", Content_Length=str(len(body))) + body, LAST_PING)
    assert answer.startswith(b"HTTP/1.1 404 ") and b"HTTP/1.1 200 " in answer


def test_requests_in_a_row(server: SmallServer) -> None:
    answer = server.exchange(PING * 50 + post(b'{"a": 1}', Connection="keep-alive") + LAST_PING)
    assert answer.count(b"HTTP/1.1 200 ") == 52 and answer.count(b'{"a":1}') == 1 and answer.endswith(b'"pong"')
    server.check_idle()


def test_an_idle_connection_ends(hasty: SmallServer) -> None:
    wait_until(lambda: hasty.exchange(PING).startswith(b"HTTP/1.1 200 "))
    hasty.check_idle()


def test_a_client_that_does_not_read(hasty: SmallServer) -> None:
    with hasty.connect() as client:
        client.sendall(head("GET", "/flood"))
        wait_until(lambda: bool(hasty.server.server_state.tasks))
        wait_until(lambda: not hasty.server.server_state.tasks)
    hasty.check_idle()


def test_a_client_that_does_not_read_the_end_of_an_answer(hasty: SmallServer) -> None:
    """What is left is less than asyncio's usual limit, from which on it tells that a client does not read."""
    hasty.server.servers[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        client.connect(("127.0.0.1", hasty.port))
        client.sendall(post(b'{"a": "' + b"x" * 90_000 + b'"}'))
        hasty.check_idle()


def test_requests_in_a_row_of_a_client_that_does_not_read(hasty: SmallServer) -> None:
    hasty.server.servers[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    with hasty.connect() as client, suppress(ConnectionError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        while True:  # the server ends it
            client.sendall(PING * 100)
    hasty.check_idle()


def test_a_client_that_leaves_in_mid_stream(server: SmallServer) -> None:
    with server.connect() as client:
        client.sendall(head("GET", "/flood"))
        assert client.recv(100_000)
    server.check_idle()


def test_200_connections(server: SmallServer) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(200)]
        for _ in range(2):
            for client in clients:
                client.sendall(PING)
            assert {status(answer_on(client)) for client in clients} == {200}
    server.check_idle()


def test_connections_beyond_the_limit() -> None:
    with small_server(limits=Limits(connections=5)) as server:
        with ExitStack() as stack:
            clients = [stack.enter_context(server.connect()) for _ in range(10)]
            for client in clients[5:]:
                assert received(client) == b""
            for client in clients[:5]:
                client.sendall(PING)
                assert status(answer_on(client)) == 200
        server.check_idle()


def test_a_handler_that_fails(server: SmallServer) -> None:
    answer = server.get("/fail")
    assert status(answer) == 500 and "private" not in str(error(answer))
    server.check_idle()


def test_what_the_server_tells_of_itself(server: SmallServer) -> None:
    assert b"\r\nserver:" not in server.get().lower()


def test_an_upgrade_is_ignored(server: SmallServer) -> None:
    answer = server.exchange(head("GET", "/ping", Connection="Upgrade, close", Upgrade="websocket"))
    assert status(answer) == 200
    server.check_idle()


def test_nothing_is_printed_or_logged(server: SmallServer, capfd: Any, caplog: Any) -> None:
    server.get("/ping?secret")
    server.get("/fail")
    server.exchange(b"secret\r\n\r\n")
    server.exchange(post(b"secret"))
    with server.connect() as client:
        client.sendall(head("GET", "/flood", Upgrade="secret", Connection="upgrade"))
        client.recv(1000)
    server.check_idle()
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_the_end_is_bounded_whatever_clients_do() -> None:
    with ExitStack() as stack:
        with small_server(limits=Limits(ending=1)) as small:
            state = small.server.server_state
            for beginning in (b"", PING[:9], post(b'{"a": 1}')[:-1], head("GET", "/flood"), PING):
                stack.enter_context(small.connect()).sendall(beginning)
            wait_until(lambda: len(state.connections) == 5 and len(state.tasks) == 2)
            loop = small.server.servers[0].get_loop()
            start = time.monotonic()
        assert time.monotonic() - start < PATIENCE
        assert not state.connections and not state.tasks
        assert loop.is_closed()
        with pytest.raises(ConnectionRefusedError):
            small.connect()


class FakeEngine:
    """Notes that it was ended."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def end(self, grace: float) -> None:
        assert grace == 0
        self.ended.set()


def test_an_exception_in_the_thread_ends_the_engine_and_the_command() -> None:
    engine: Any = FakeEngine()
    with pytest.raises(ZeroDivisionError), small_server() as server:
        server.get()
        server.server.servers[0].get_loop().call_soon_threadsafe(lambda: 1 / 0)
        wait_until(lambda: server.service.is_broken)
        server.service.begin(None, engine)  # type: ignore[arg-type]  # it was still loading
        assert engine.ended.wait(PATIENCE)


def test_an_exception_at_the_start_of_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr("gpt2cli.serving.http_server.Server.startup", fail)
    service = Service(ServeConfig(port=0), lambda record: None)
    service.engine = engine = FakeEngine()  # type: ignore[assignment]
    with pytest.raises(MemoryError), running(None, service, bind(service.config)):  # type: ignore[arg-type]
        assert engine.ended.wait(PATIENCE)


def test_an_exception_of_the_command_comes_first() -> None:
    with pytest.raises(KeyboardInterrupt), small_server() as server:
        server.server.failure = ValueError()
        raise KeyboardInterrupt


def refusal(**settings: Any) -> GPT2Error:
    with pytest.raises(GPT2Error) as raised:
        bind(ServeConfig(**settings))
    assert "\n" not in str(raised.value)
    return raised.value


def test_a_port_in_use() -> None:
    with bind(ServeConfig(port=0)) as first:
        port = first.getsockname()[1]
        refused = refusal(port=port)
        assert str(refused).startswith(f"port {port} of 127.0.0.1 is in use: ") and "--port" in str(refused)
        assert refused.exit_code == ExitCode.RESOURCE
    bind(ServeConfig(port=port)).close()


def test_a_port_can_be_used_again_at_once() -> None:
    with small_server() as server, server.connect() as client:
        client.sendall(LAST_PING)
        assert received(client)
    bind(ServeConfig(port=server.port)).close()


def test_hosts_that_are_not_this_machines() -> None:
    refused = refusal(host="192.0.2.1", port=0, api_key="k")
    assert refused.exit_code == ExitCode.USAGE and "is not an address of this machine" in str(refused)
    for host in ("no such host", "nowhere.invalid", "x" * 300, "a..b"):
        refused = refusal(host=host, port=0, api_key="k")
        assert refused.exit_code == ExitCode.USAGE and "is not known" in str(refused)


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.EACCES, "above 1023"), (errno.EMFILE, os.strerror(errno.EMFILE))]
)
def test_other_errors(number: int, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "create_server", refuse)
    refused = refusal(port=80)
    assert refused.exit_code == ExitCode.RESOURCE and advice in str(refused) and "80" in str(refused)


def test_a_reachable_host_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(host="0.0.0.0", port=0).exit_code == ExitCode.USAGE
    # a name that this machine resolves to an address that others reach
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, 1, 6, "", ("192.0.2.1", 0))])
    assert "set a key" in str(refusal(host="localhost", port=0))


def has_ipv6() -> bool:
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6(host: str) -> None:
    with bind(ServeConfig(host=host, port=0)) as listener:
        assert listener.family == socket.AF_INET6 and listener.getsockname()[0] == "::1"


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_all_addresses() -> None:
    with bind(ServeConfig(host="::", port=0, api_key="k")) as listener:
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, listener.getsockname()[1]), timeout=PATIENCE).close()


def test_localhost_is_ipv4() -> None:
    with bind(ServeConfig(host="localhost", port=0)) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
