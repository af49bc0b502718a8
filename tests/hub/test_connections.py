"""Slow servers and dead proxies: the client gives up, and its message names the server and the proxy."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gpt2cli.data.source import fetch_source
from gpt2cli.errors import NetworkError
from gpt2cli.hub import connections, models, resumable_download
from gpt2cli.hub.connections import answer_in_time, route, steady
from gpt2cli.hub.resumable_download import TooSlowError
from gpt2cli.progress import ignore
from tests.hub_server import HubServer

PROXIES = [name for kind in ("http", "https", "all", "no") for name in (f"{kind}_proxy", f"{kind}_proxy".upper())]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def dripping() -> Iterator[str]:
    """The address of a server that sends a byte of its headers every 20 ms, and never all."""
    stop = threading.Event()

    def drip(line: socket.socket) -> None:
        with line, suppress(OSError):
            line.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not stop.wait(0.02):
                line.sendall(b"x")

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):  # when it is closed
            while not stop.is_set():
                threading.Thread(target=drip, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        stop.set()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable_download, "DELAYS", (0.0,))
    monkeypatch.setattr(connections, "DEADLINE", 1.0)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.2)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    monkeypatch.setattr("gpt2cli.hub.addresses.TIMEOUT", 0.2)


def test_headers_that_drip_have_a_deadline(
    hub: HubServer, hasty: None, dripping: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", dripping + "/{repo_id}")
    start = time.monotonic()
    late = r"no answer in time from 127\.0\.0\.1 \(HF_ENDPOINT\) after 2 tries: try again later"
    with pytest.raises(NetworkError, match=late):
        models.resolve("gpt2")
    with pytest.raises(NetworkError, match=r"no answer in time from 127\.0\.0\.1 after 2 tries"):
        fetch_source(dripping + "/a.json")
    assert time.monotonic() - start < 10


def test_headers_of_a_body_that_drip_have_a_deadline(
    hub: HubServer, hasty: None, dripping: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", dripping + "/{repo_id}")
    remote = models.Remote("owner/name", "main", ignore)
    with (
        pytest.raises(resumable_download.TemporaryError, match="no answer in time"),
        remote.body("model.safetensors", 0),
    ):
        pass


def test_a_body_that_drips_is_given_up_however_much_of_it_came(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable_download, "sleep", lambda seconds: None)
    monkeypatch.setattr(connections, "RATE_SECONDS", 0.0)
    monkeypatch.setattr(connections, "LEAST_RATE", 1e15)
    hub.files["model.safetensors"] = bytes(2_000_000)  # each try brings a chunk of it
    with pytest.raises(
        NetworkError, match=r"bytes \(less than .* kB/s from .*\) after 5 tries: .*, the received bytes are kept"
    ):
        models.resolve("gpt2")
    assert len(hub.requests("GET", "config.json") + hub.requests("GET", "model.safetensors")) <= 10


def test_the_rate_is_that_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 30.0, 60.0, 60.0, 90.0, 121.0])
    monkeypatch.setattr(connections, "monotonic", lambda: next(moments))
    chunks = steady([b"x" * 90_000, b"", b"x" * 40_000, b"x" * 20_000, b"never"], "https://example.org/a")
    assert [len(next(chunks)) for _ in range(4)] == [90_000, 0, 40_000, 20_000]
    with pytest.raises(TooSlowError, match=r"less than 1 kB/s from example\.org"):
        next(chunks)


def test_an_answer_and_an_error_come_through() -> None:
    assert answer_in_time(lambda: 7, 5) == 7
    with pytest.raises(KeyError, match="x"):
        answer_in_time(lambda: {}["x"], 5)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "example.org"),
        ({"HTTPS_PROXY": "http://127.0.0.1:1"}, "example.org through the proxy 127.0.0.1:1 (HTTPS_PROXY)"),
        ({"https_proxy": "me:secret@10.0.0.1:80"}, "example.org through the proxy 10.0.0.1:80 (HTTPS_PROXY)"),
        ({"ALL_PROXY": "http://proxy"}, "example.org through the proxy proxy (ALL_PROXY)"),
        ({"HTTP_PROXY": "http://127.0.0.1:1"}, "example.org"),
        ({"HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "example.org"}, "example.org"),
        ({"HTTPS_PROXY": "http://[::1"}, "example.org through the proxy in the environment (HTTPS_PROXY)"),
        ({"HF_ENDPOINT": "https://example.org/another"}, "example.org"),
        ({"HF_ENDPOINT": "https://example.org/a.json/"}, "example.org (HF_ENDPOINT)"),
    ],
)
def test_a_route_names_what_the_environment_sets_without_passwords(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert route("https://example.org/a.json") == expected


def test_a_dead_proxy_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable_download, "DELAYS", ())
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    for fetch in (lambda: models.resolve("gpt2"), lambda: fetch_source("https://example.org/a.json")):
        with pytest.raises(NetworkError, match=r"through the proxy 127\.0\.0\.1:9 \(HTTPS_PROXY\)"):
            fetch()
