"""Reading the bodies of requests: JSON of a bounded size, in a bounded time."""

import asyncio
from collections.abc import Callable
from email.message import Message
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.untrusted import parse_json, repeated_name, shown

T = TypeVar("T")

MOST_BYTES = 4 * 2**20
"""The largest body in bytes. A prompt that fills the window has a few KB; a batch can have hundreds of them."""
MOST_DISCARDED = 64 * 2**20
"""The most bytes that are read of a body that is too large."""
LONGEST_TIME = 30.0
"""The most seconds from a request's head to the end of its body."""


async def read_json(
    request: Request,
    use: Callable[[dict[str, Any]], T],
    most_bytes: int = MOST_BYTES,
    longest_time: float = LONGEST_TIME,
) -> T:
    """What `use` returns for the object that a request has as its body.

    The body is parsed and used in another thread: several MB take seconds, and other requests should not wait for them.
    Raises RefusedError: 415 for another content type, 413 for a body of more than `most_bytes`, 408 for one that takes
    longer than `longest_time` seconds, 400 for one that is not an object in JSON. Names that occur twice in an object
    and NaN are refused too. Raises Starlette's ClientDisconnect if the client leaves.
    """
    _check_type(request)
    length = int(request.headers.get("content-length", 0))  # h11 has checked that it is a number
    too_large = RefusedError(413, f"the body has more than {most_bytes:,} bytes: send less in one request")
    if length > MOST_DISCARDED or (length > most_bytes and "expect" in request.headers):
        raise too_large
    try:
        body = await asyncio.wait_for(_read(request, most_bytes), longest_time)
    except asyncio.TimeoutError:
        if length > most_bytes:
            raise too_large from None
        raise RefusedError(408, f"the body did not arrive within {longest_time:g} seconds") from None
    if body is None:
        raise too_large
    return await run_in_threadpool(lambda: use(_parse(body)))


def _check_type(request: Request) -> None:
    content = Message()
    content["Content-Type"] = ", ".join(request.headers.getlist("content-type"))
    is_utf8 = content.get_content_charset("utf-8") in ("utf-8", "utf8")
    if content.get_content_type() != "application/json" or not is_utf8:
        raise RefusedError(415, "the body must be JSON in UTF-8: send the header Content-Type: application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError(415, "the body must not be compressed: leave out the header Content-Encoding")


async def _read(request: Request, most_bytes: int) -> bytes | None:
    """The body, or None if it has more than `most_bytes`.

    Reads a body that is too large to its end, without keeping it: most clients read the answer only then, and get an
    error instead of it if the connection is closed before.
    """
    body, size = bytearray(), 0
    async for piece in request.stream():
        size += len(piece)
        if size > MOST_DISCARDED:
            return None
        if size <= most_bytes:
            body += piece
        else:
            body.clear()
    return bytes(body) if size <= most_bytes else None


def _parse(body: bytes) -> dict[str, Any]:
    try:
        found = parse_json(body.decode(), _object, _constant)
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"the body is not UTF-8 at byte {error.start + 1}") from None
    except ValueError as error:
        raise RefusedError(400, f"the body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise RefusedError(400, "the body must be a JSON object")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if (name := repeated_name(pairs)) is not None:
        raise ValueError(f"the name {shown(name)} occurs twice in an object")
    return dict(pairs)


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")
