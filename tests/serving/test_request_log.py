"""One record for each request, with its status, and without any text of it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gpt2cli.config import ServeConfig
from gpt2cli.serving.app import answering
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.request_log import RequestLog
from gpt2cli.serving.service import RequestRecord, Service

Endpoint = Callable[[Request], Awaitable[Response]]


class Logged:
    """An application with one route, and the records of its requests."""

    def __init__(self, endpoint: Endpoint, pattern: str = "/v1/models/{id:path}") -> None:
        self.records: list[RequestRecord] = []
        routes = [Route(pattern, endpoint, methods=["GET", "POST"])]
        self.app = RequestLog(answering(routes), Service(ServeConfig(), self.records.append), routes)

    def ask(self, path: str, method: str = "GET") -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, path)

        return asyncio.run(ask())

    @property
    def only(self) -> RequestRecord:
        [record] = self.records
        return record


def raises(error: Exception) -> Endpoint:
    async def endpoint(_request: Request) -> Response:
        raise error

    return endpoint


async def fine(request: Request) -> Response:
    counts = request.scope["gpt2cli"]
    counts.prompt_tokens, counts.new_tokens = 5, 7
    return JSONResponse({"id": request.path_params["id"]})


def test_a_record_has_the_pattern_of_the_route_and_not_the_path() -> None:
    logged = Logged(fine)
    assert logged.ask("/v1/models/my/secret?prompt=secret").json() == {"id": "my/secret"}
    record = logged.only
    assert (record.method, record.path, record.status) == ("GET", "/v1/models/{id}", 200)
    assert (record.prompt_tokens, record.new_tokens, record.first_text) == (5, 7, None)
    assert 0 < record.seconds < 60
    assert "secret" not in repr(record)


def test_a_path_that_does_not_exist_is_other() -> None:
    logged = Logged(fine)
    answer = logged.ask("/secret")
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"
    assert "the base URL ends with /v1, and /v1/models" in answer.json()["error"]["message"]
    assert (logged.only.path, logged.only.status) == ("other", 404)


def test_a_path_with_another_slash_is_not_redirected() -> None:
    assert Logged(fine, "/v1/models").ask("/v1/models/").status_code == 404


def test_another_method_is_405_and_says_which_ones_there_are() -> None:
    logged = Logged(fine)
    answer = logged.ask("/v1/models/tiny", "SECRET")
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]
    assert "POST" in answer.json()["error"]["message"]
    assert (logged.only.method, logged.only.path) == ("other", "/v1/models/{id}")


def test_a_refusal_is_answered_in_the_shape_of_openai() -> None:
    error = RefusedError(429, "too many requests wait", code="queue_full", headers={"Retry-After": "3"})
    logged = Logged(raises(error))
    answer = logged.ask("/v1/models/x")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert answer.json() == {
        "error": {
            "message": "too many requests wait",
            "type": "rate_limit_error",
            "param": None,
            "code": "queue_full",
        }
    }
    assert logged.only.status == 429


def test_a_refusal_can_quote_half_of_a_surrogate_pair() -> None:
    answer = Logged(raises(RefusedError(400, "unknown field '\ud800é'"))).ask("/v1/models/x")
    assert answer.json()["error"]["message"] == "unknown field '\ud800é'"


def test_a_bug_is_500_without_a_word_of_the_exception() -> None:
    logged = Logged(raises(KeyError("secret")))
    answer = logged.ask("/v1/models/x")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert logged.only.status == 500
    assert logged.only.bug is not None and logged.only.bug.startswith("KeyError at ")
    assert "secret" not in logged.only.bug


def test_a_client_that_left_is_499() -> None:
    logged = Logged(raises(ClientDisconnect()))
    logged.ask("/v1/models/x")
    assert logged.only.status == 499


@pytest.mark.parametrize(("ending", "status"), [("returns", 499), ("fails", 500), ("is cancelled", 499)])
def test_an_answer_that_is_cut_is_not_logged_as_complete(ending: str, status: int) -> None:
    records: list[RequestRecord] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if ending == "fails":
            raise KeyError
        if ending == "is cancelled":
            raise asyncio.CancelledError

    async def nothing(*_: object) -> None:
        pass

    log = RequestLog(app, Service(ServeConfig(), records.append), [])
    scope = {"type": "http", "method": "GET", "path": "/"}
    with suppress(KeyError, asyncio.CancelledError):
        asyncio.run(log(scope, nothing, nothing))  # type: ignore[arg-type]
    assert [record.status for record in records] == [status]
