"""Answers to requests that fail, in the shape of OpenAI's errors."""

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gpt2cli.serving.refused_error import RefusedError

BUG = RefusedError(500, "the server failed at this request: it is a bug, whose place is in the server's log")


def as_json(value: Any) -> bytes:
    """JSON in UTF-8. Half of a surrogate pair, which a client can send as an escape, becomes that escape again."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
        errors="backslashreplace"
    )


def refused(error: RefusedError) -> Response:
    """The answer to a request that is refused."""
    # the openai package repeats a request that fails with 500: a model that diverges would diverge again
    final = {"x-should-retry": "false"} if error.status == 500 else {}
    return Response(as_json(error.as_dict()), error.status, error.headers | final, "application/json")


async def answer_refused(_request: Request, error: Exception) -> Response:
    """Starlette's handler of RefusedError."""
    assert isinstance(error, RefusedError)
    return refused(error)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's handler of HTTPException, which Starlette raises for a wrong path or method."""
    assert isinstance(error, HTTPException)
    path = request.scope["path"]
    if error.status_code == 404:
        advice = "the base URL ends with /v1, and /v1/models names the model"
        return refused(RefusedError(404, f"{path} does not exist on this server: {advice}"))
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{path} does not answer {request.method}: use {allowed}"
        return refused(RefusedError(405, message, headers=error.headers))
    return refused(RefusedError(error.status_code, error.detail, headers=error.headers))


async def answer_bug(_request: Request, _error: Exception) -> Response:
    """Starlette's handler of all other exceptions. The answer does not say what happened: it may be private."""
    return refused(BUG)


async def answer_nobody(_request: Request, _error: Exception) -> Response:
    """Starlette's handler of ClientDisconnect. Nobody gets this answer; the log gets its status."""
    return Response(status_code=499)


HANDLERS = {
    RefusedError: answer_refused,
    HTTPException: answer_http_exception,
    ClientDisconnect: answer_nobody,
    Exception: answer_bug,
}
"""For Starlette: the handler of each kind of exception."""
