"""The HTTP server: a thread that runs uvicorn, while the main thread runs the engine."""

import asyncio
import errno
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from gpt2cli.config import ServeConfig
from gpt2cli.errors import GPT2Error, ResourceError, UsageError
from gpt2cli.serving.addresses import check, check_key, plain_host
from gpt2cli.serving.connection import Connection, Limits, Settings
from gpt2cli.serving.service import Report, Service

BACKLOG = 512
"""Connections that may wait until the server accepts them."""
_PATIENCE = 10.0
"""The most seconds that `running` waits for the thread beyond `Limits.ending`."""


def bind(config: ServeConfig) -> socket.socket:
    """Listen at the host and port of `config`. Clients can connect from now on, and wait for `listening`.

    Raises UsageError for a host that is not this machine's or that needs a key, and ResourceError for a port that is
    in use or that this user may not take.
    """
    check(config)
    family, address = _address(config)
    is_dual = plain_host(config.host) == "::" and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=is_dual)
    except OSError as error:
        raise _bind_error(config, error) from None
    # Connections inherit it. Without it, the second packet of an answer waits 40 ms until the client acknowledges the
    # first. asyncio does not set it for a socket that another function made.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class Server(uvicorn.Server):
    """uvicorn's server. `failure` is the exception that ended it, if one did."""

    def __init__(self, app: ASGIApp, limits: Limits, report: Report) -> None:
        super().__init__(Settings(app, limits, report))
        self.failure: BaseException | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self._on_error)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End all requests and connections in bounded time, also those of clients that neither send nor read."""
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.drop()

    def _on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """End the server for an exception in a callback, which no request will see.

        asyncio itself closes a connection that an exception comes from. It accepts connections again after a while if
        there were no file descriptors.
        """
        error = context.get("exception")
        if "handle" in context and error is not None and not isinstance(error, OSError):
            self.failure, self.should_exit = error, True


@contextmanager
def listening(service: Service, listener: socket.socket) -> Iterator[Server]:
    """Answer the requests that come to a socket of `bind`, as `running` does."""
    from gpt2cli.serving.app import make_app

    with running(make_app(service), service, listener) as server:
        yield server


@contextmanager
def running(app: ASGIApp, service: Service, listener: socket.socket, limits: Limits | None = None) -> Iterator[Server]:
    """Run a server for `app` in a second thread, and end it in bounded time. The socket is closed after that.

    An exception that ends the server ends the engine too, as soon as there is one, and is raised here at the end.
    """
    limits = limits or Limits()
    server = Server(app, limits, service.report)
    has_ended = Event()  # instead of `join`: a signal during that would make Python 3.11 take the thread for ended
    Thread(target=_run, args=(server, listener, service, has_ended), name="http", daemon=True).start()
    try:
        yield server
    finally:
        server.should_exit = True
        has_ended.wait(limits.ending + _PATIENCE)
        listener.close()
    if server.failure:
        raise server.failure


def _run(server: Server, listener: socket.socket, service: Service, has_ended: Event) -> None:
    logger = logging.getLogger("asyncio")  # it warns of writes to clients that have left
    was_disabled, logger.disabled = logger.disabled, True
    try:
        server.run([listener])
    except BaseException as error:
        server.failure = error
    finally:
        logger.disabled = was_disabled
        has_ended.set()
    if server.failure:
        service.give_up()


def _address(config: ServeConfig) -> tuple[int, Any]:
    """The family and address of the host. IPv4 is taken if a name has both, as clients try it too."""
    try:
        found = socket.getaddrinfo(plain_host(config.host), config.port, type=socket.SOCK_STREAM)
    except (OSError, ValueError):  # ValueError: a name that no host can have
        raise UsageError(f"--host {config.host} is not known: give an address of this machine") from None
    family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    check_key(config, str(address[0]))
    return family, address


def _bind_error(config: ServeConfig, error: OSError) -> GPT2Error:
    if error.errno == errno.EADDRINUSE:
        advice = "end the other program, or choose another port with --port (0: a free one)"
        return ResourceError(f"port {config.port} of {config.host} is in use: {advice}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return ResourceError(f"port {config.port} is for administrators: choose one above 1023 with --port")
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(f"--host {config.host} is not an address of this machine: give another, or leave it out")
    return ResourceError(f"cannot listen at {config.host} port {config.port} ({error.strerror or error})")
