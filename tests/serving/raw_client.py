"""A client of few lines, on asyncio's streams: it costs little while it measures, and can stop at any byte."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

COMPLETIONS = "/v1/completions"


@dataclass(frozen=True)
class Connection:
    """An HTTP/1.1 connection for one request, which `begin` has sent.

    status, headers   of the answer; read by `head`
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> tuple[int, dict[str, str]]:
        """The status and the headers of the answer, with names in small letters."""
        status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        return int(status.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def pieces(self, headers: dict[str, str]) -> AsyncIterator[bytes]:
        """The body of the answer, as it arrives."""
        if headers.get("transfer-encoding") != "chunked":
            yield await self.reader.readexactly(int(headers["content-length"]))
            return
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:  # the server has closed it first
            return


async def begin(port: int, path: str, body: dict[str, Any] | None = None) -> Connection:
    """Send a request: GET, or POST with a body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    writer.write(request_bytes(port, path, body))
    return Connection(reader, writer)


def request_bytes(port: int, path: str, body: dict[str, Any] | None = None) -> bytes:
    head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
    if body is None:
        return f"{head}\r\n".encode()
    content = json.dumps(body).encode()
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


async def fetch(port: int, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
    """The status and the whole body of an answer."""
    connection = await begin(port, path, body)
    try:
        status, headers = await connection.head()
        return status, b"".join([piece async for piece in connection.pieces(headers)])
    finally:
        await connection.close()


async def ask(port: int, body: dict[str, Any], path: str = COMPLETIONS) -> dict[str, Any]:
    """The answer to a request that must succeed, without a stream."""
    status, content = await fetch(port, path, body)
    assert status == 200, (status, content, body)
    answer: dict[str, Any] = json.loads(content)
    return answer


async def events(connection: Connection) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a stream, which must succeed and be complete."""
    status, headers = await connection.head()
    if status != 200:
        raise AssertionError((status, b"".join([piece async for piece in connection.pieces(headers)])))
    rest = b""
    async for piece in connection.pieces(headers):
        *lines, rest = (rest + piece).split(b"\n\n")
        for line in lines:
            if line == b"data: [DONE]":
                return
            if line.startswith(b"data: "):  # else a comment
                event = json.loads(line[6:])
                assert "error" not in event, event
                yield event
    raise AssertionError("the stream has no end")


async def stream(port: int, body: dict[str, Any], path: str = COMPLETIONS) -> AsyncIterator[dict[str, Any]]:
    """The chunks of the answer to a request, which must succeed."""
    connection = await begin(port, path, body | {"stream": True})
    try:
        async for event in events(connection):
            yield event
    finally:
        await connection.close()
