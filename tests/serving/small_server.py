"""A server in this process with a small application behind the real layers, and clients that do not keep to HTTP."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gpt2cli.config import ServeConfig
from gpt2cli.serving.app import answering
from gpt2cli.serving.bodies import read_json
from gpt2cli.serving.connection import Limits
from gpt2cli.serving.guards import Guards
from gpt2cli.serving.http_server import Server, bind, running
from gpt2cli.serving.request_log import RequestLog
from gpt2cli.serving.service import RequestRecord, Service
from tests.runner import wait_until

PATIENCE = 30.0
"""Seconds that a test waits for what should happen at once."""
MOST_BYTES = 100_000
"""The largest body that `/echo` reads."""


@dataclass
class SmallServer:
    """`records` are those of the log."""

    server: Server
    service: Service
    port: int
    records: list[RequestRecord]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def exchange(self, *pieces: bytes) -> bytes:
        """All that the server sends until it closes the connection, after these bytes."""
        with self.connect() as client:
            with suppress(ConnectionError):
                for piece in pieces:
                    client.sendall(piece)
            return received(client)

    def get(self, path: str = "/ping", **headers: str) -> bytes:
        return self.exchange(head("GET", path, Connection="close", **headers))

    def check_idle(self) -> None:
        """It still answers, and holds no connection, task or file descriptor."""
        wait_until(lambda: self.get().startswith(b"HTTP/1.1 200 "))
        state = self.server.server_state
        wait_until(lambda: not state.connections and not state.tasks)
        wait_until(lambda: open_connections(self.port) == 0)


def received(client: socket.socket) -> bytes:
    """All that comes until the connection ends. A reset after an answer counts as its end."""
    found = b""
    with suppress(ConnectionError):
        while piece := client.recv(65536):
            found += piece
    return found


def head(method: str, path: str, **headers: str) -> bytes:
    """The head of a request. An underscore in a header's name stands for a hyphen."""
    lines = {"Host": "localhost:8000"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return "\r\n".join([f"{method} {path} HTTP/1.1", *(f"{name}: {lines[name]}" for name in lines), "", ""]).encode()


def post(body: bytes, path: str = "/echo", content_type: str = "application/json", **headers: str) -> bytes:
    headers = {"Content-Length": str(len(body)), "Content-Type": content_type, "Connection": "close"} | headers
    return head("POST", path, **headers) + body


def open_connections(port: int) -> int:
    """The connections of this process to a port of its own that have a file descriptor at the server's end."""
    process = psutil.Process()
    found = process.net_connections("tcp") if hasattr(process, "net_connections") else process.connections("tcp")
    return sum(entry.laddr.port == port and entry.status != psutil.CONN_LISTEN for entry in found)


def _routes(longest_time: float) -> list[Route]:
    async def ping(request: Request) -> Response:
        return JSONResponse("pong")

    async def echo(request: Request) -> Response:
        return JSONResponse(await read_json(request, dict, MOST_BYTES, longest_time))

    async def flood(request: Request) -> Response:
        async def pieces() -> Any:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)

        return StreamingResponse(pieces())

    async def fail(request: Request) -> Response:
        raise ValueError("private")

    return [
        Route("/", ping),
        Route("/ping", ping),
        Route("/echo", echo, methods=["POST"]),
        Route("/flood", flood),
        Route("/fail", fail),
    ]


@contextmanager
def small_server(
    config: ServeConfig | None = None, limits: Limits | None = None, longest_time: float = PATIENCE
) -> Iterator[SmallServer]:
    records: list[RequestRecord] = []
    config = config or ServeConfig(port=0)
    service, routes = Service(config, records.append), _routes(longest_time)
    app = RequestLog(Guards(answering(routes), service), service, routes)
    listener = bind(config)
    port = listener.getsockname()[1]
    with running(app, service, listener, limits) as server:
        yield SmallServer(server, service, port, records)
