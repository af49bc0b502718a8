"""Requests are made of bytes here, and go through the guards alone: clients would not send most of them."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from gpt2cli.config import ServeConfig
from gpt2cli.serving.guards import Guards
from gpt2cli.serving.service import Service

HERE = (b"host", b"localhost:8000")
PAGE = "http://chat.example:3000"
KEY = "sk-Ab1"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


def ask(
    *headers: tuple[bytes, bytes],
    path: str = "/v1/models",
    method: str = "GET",
    **settings: Any,
) -> Answer:
    """The answer to a request with these headers. It is 200 if the guards let it pass."""
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the guards read a body")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    guards = Guards(PlainTextResponse("passed"), Service(ServeConfig(**settings), lambda record: None))
    asyncio.run(guards(scope, receive, send))
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], answered, b"".join(message.get("body", b"") for message in sent[1:]))


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8000",
        "LOCALHOST:9",
        "localhost.:8000",
        "127.0.0.1",
        "127.0.0.1:8000",
        "127.3.2.1:1",
        "[::1]",
        "[::1]:8000",
        "[0:0:0:0:0:0:0:1]:8000",
    ],
)
def test_a_host_of_this_machine(host: str) -> None:
    assert ask((b"host", host.encode())).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "example.org:8000",
        "localhost.example.org",
        "127.0.0.1.example.org",
        "192.168.0.1:8000",
        "0.0.0.0",
        "me@localhost:8000",
        "localhost@example.org",
        "[::]",
        "::1",
        "",
        ":8000",
        "localhost,example.org",
        "localhost/x",
        "localhost:80000",
        "127.1:8000",
        "2130706433",
    ],
)
def test_a_foreign_host(host: str) -> None:
    for path in ("/", "/health", "/v1/models", "/nowhere"):
        answer = ask((b"host", host.encode()), path=path)
        assert answer.status == 403 and answer.error["type"] == "permission_error"


def test_exactly_one_host() -> None:
    assert ask().status == 403
    assert ask(HERE, HERE).status == 403
    assert ask(HERE, (b"host", b"example.org")).status == 403


def test_bytes_that_are_not_ascii() -> None:
    assert ask((b"host", b"localhost\xff")).status == 403
    assert ask(HERE, (b"origin", b"http://localhost:8000\xff")).status == 403
    assert ask(HERE, (b"authorization", b"Bearer \xff\xfe"), api_key=KEY).status == 401


@pytest.mark.parametrize(
    ("given", "host", "expected"),
    [
        ("192.168.0.7", "192.168.0.7:8000", 200),
        ("192.168.0.7", "localhost:8000", 200),
        ("192.168.0.7", "192.168.0.8:8000", 403),
        ("MyBox.lan", "mybox.lan.:8000", 200),
        ("mybox.lan", "box.lan", 403),
        ("2001:DB8::1", "[2001:db8:0::1]:8000", 200),
        ("0.0.0.0", "anything.example:8000", 200),
        ("::", "[2001:db8::1]", 200),
        ("0.0.0.0", "me@localhost", 403),
    ],
)
def test_the_given_host(given: str, host: str, expected: int) -> None:
    bearer = (b"authorization", f"Bearer {KEY}".encode())
    assert ask((b"host", host.encode()), bearer, host=given, api_key=KEY).status == expected


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("LOCALHOST:8000", "http://localhost:8000"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"),
    ],
)
def test_the_page_of_the_server_itself(host: str, origin: str) -> None:
    answer = ask((b"host", host.encode()), (b"origin", origin.encode()), method="POST")
    assert answer.status == 200
    assert not any(name.lower().startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.org",
        "http://localhost",
        "http://localhost:3000",
        "https://localhost:8000",
        "null",
        "",
        "*",
        "http://127.0.0.1:8000",
        "http://localhost:8000.example.org",
        "http://localhost:8000/",
        "http://me@localhost:8000",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
def test_a_foreign_origin(origin: str, method: str) -> None:
    preflight = (b"access-control-request-method", b"POST")
    answer = ask(HERE, (b"origin", origin.encode()), preflight, method=method, cors_origins=(PAGE,))
    assert answer.status == 403 and "--cors-origin" in answer.error["message"]
    assert not any(name.lower().startswith("access-control") for name in answer.headers)


def test_two_origins() -> None:
    own = (b"origin", b"http://localhost:8000")
    assert ask(HERE, own, own).status == 403
    assert ask(HERE, own, (b"origin", PAGE.encode()), cors_origins=(PAGE,)).status == 403


def test_an_allowed_origin_can_read_answers_and_refusals() -> None:
    page = (b"origin", PAGE.encode())
    for status, answer in {
        200: ask(HERE, page, cors_origins=(PAGE,)),
        401: ask(HERE, page, cors_origins=(PAGE,), api_key=KEY),
        403: ask((b"host", b"example.org"), page, cors_origins=(PAGE,)),
    }.items():
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers


def test_caches_learn_that_answers_depend_on_the_origin() -> None:
    assert ask(HERE, cors_origins=(PAGE,)).headers["vary"] == "Origin"
    assert "vary" not in ask(HERE).headers


def test_a_preflight_needs_no_key_and_allows_to_send_one() -> None:
    headers = [(b"origin", PAGE.encode()), (b"access-control-request-method", b"POST")]
    headers.append((b"access-control-request-headers", b"authorization,content-type,x-stainless-os"))
    answer = ask(HERE, *headers, method="OPTIONS", path="/v1/completions", cors_origins=(PAGE + "/",), api_key=KEY)
    assert answer.status == 204 and answer.body == b""
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-methods"] == "GET, POST"
    assert answer.headers["access-control-allow-headers"] == "*, Authorization"


def test_options_without_a_preflight_is_passed_on() -> None:
    assert ask(HERE, method="OPTIONS").body == b"passed"
    assert ask(HERE, (b"origin", PAGE.encode()), method="OPTIONS", cors_origins=(PAGE,)).body == b"passed"


@pytest.mark.parametrize(
    ("site", "mode", "destination", "expected"),
    [
        ("none", "navigate", "document", 200),
        ("same-origin", "cors", "empty", 200),
        ("cross-site", "navigate", "document", 200),
        ("cross-site", "no-cors", "script", 403),
        ("cross-site", "navigate", "iframe", 403),
        ("same-site", "no-cors", "image", 403),
    ],
)
def test_a_foreign_page_may_link_to_the_server_only(site: str, mode: str, destination: str, expected: int) -> None:
    fetch = {"site": site, "mode": mode, "dest": destination}
    headers = [(f"sec-fetch-{name}".encode(), value.encode()) for name, value in fetch.items()]
    assert ask(HERE, *headers).status == expected


@pytest.mark.parametrize("value", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER  {KEY} "])
def test_the_key(value: str) -> None:
    assert ask(HERE, (b"authorization", value.encode()), api_key=KEY).status == 200


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer{KEY}",
        f"Basic {KEY}",
        KEY,
        f"Bearer {KEY}x",
        "Bearer sk-Ab",
        "Bearer sk-ab1",
        f"Bearer {KEY} {KEY}",
        f"Bearer\t{KEY}",
        f"Bearer {KEY}é",
        "Bearer " + "x" * 10000,
    ],
)
def test_a_wrong_key(value: str) -> None:
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/completions"), ("GET", "/metrics"), ("GET", "/nowhere")):
        answer = ask(HERE, (b"authorization", value.encode("latin-1")), path=path, method=method, api_key=KEY)
        assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert answer.error["code"] == "invalid_api_key" and answer.error["type"] == "authentication_error"
        assert answer.error["message"].startswith("the key is wrong:") and KEY not in answer.error["message"]


def test_no_key_and_two_keys() -> None:
    right = (b"authorization", f"Bearer {KEY}".encode())
    assert ask(HERE, api_key=KEY).error["message"].startswith("this server needs a key:")
    assert ask(HERE, right, right, api_key=KEY).status == 401


def test_the_page_and_the_health_need_no_key() -> None:
    for path in ("/", "/health"):
        assert ask(HERE, path=path, api_key=KEY).status == 200
    for path in ("//", "/health/", "/Health", "/health/../metrics", ""):
        assert ask(HERE, path=path, api_key=KEY).status == 401


def test_any_key_is_accepted_if_none_is_set() -> None:
    assert ask(HERE, (b"authorization", b"Bearer whatever")).status == 200
