"""One connection of a client: uvicorn's protocol, with limits that it does not have."""

import asyncio
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

from gpt2cli.serving.answers import as_json
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.service import Report, RequestRecord

_TLS = b"\x16\x03"
"""The first bytes of a client that speaks TLS."""
_SILENT = 100
"""A level above all levels of log messages."""


@dataclass(frozen=True)
class Limits:
    """What a client may take of the server. Times are in seconds.

    sending      from the first byte of a request's head to its last; from an answer to the end of the request's body,
                 if it was answered before
    idle         between two requests of a connection. Clients that keep connections should close them first: httpx
                 does after 5.
    stalled      without the client reading any of an answer
    ending       for requests that run when the server ends
    head         bytes of a request's head. A head that arrives in one piece may be longer.
    connections  at a time. Further ones are closed at once.
    """

    sending: float = 10
    idle: int = 30
    stalled: float = 60
    ending: int = 2
    head: int = 16 * 1024
    connections: int = 512


class Settings(uvicorn.Config):
    """The settings of uvicorn, and what the protocol reads. No log, no reading of the environment.

    report  gets a record of each request that is not HTTP
    """

    def __init__(self, app: ASGIApp, limits: Limits, report: Report) -> None:
        self.limits, self.report = limits, report
        super().__init__(
            app,
            loop="asyncio",
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            workers=1,
            log_config=None,
            log_level=_SILENT,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=limits.idle,
            timeout_graceful_shutdown=limits.ending,
            h11_max_incomplete_event_size=limits.head,
        )


class Connection(H11Protocol):
    """A connection with time limits for what the client sends and reads. Errors in HTTP are answered in JSON."""

    config: Settings

    def __init__(
        self,
        config: Settings,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.limits = config.limits
        self._owed: str | None = None
        self._owed_since = 0.0
        self._is_tls = False
        self._owed_timer: asyncio.TimerHandle | None = None
        self._stalled_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so `pause_writing` is called whenever the client does not read
        if len(self.connections) > self.limits.connections:
            self.loop.call_soon(self.drop)  # Python 3.10 begins to read after this call, also if it were closed here
        self._limit_sending()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        for timer in (self._owed_timer, self._stalled_timer):
            if timer:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._is_tls = data.startswith(_TLS)
        super().data_received(data)
        self._limit_sending()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled_timer:
            self._stalled_timer.cancel()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP. `msg` is uvicorn's, and not used."""
        if len(self.conn.trailing_data[0]) > self.limits.head:
            self._refuse(431, f"the head of the request has more than {self.limits.head:,} bytes")
        else:
            tls = "this is TLS: the address of this server begins with http://, not https://"
            self._refuse(400, tls if self._is_tls else "this is not a valid HTTP request")

    def drop(self) -> None:
        """Close the connection at once, without sending what is left of an answer."""
        self._leave_cycle()
        self.transport.abort()

    def _limit_sending(self) -> None:
        """Start the clock when the client begins to owe a head, or the rest of a body, and stop it when it is there.

        The time for a body before its answer is limited by who reads it, and the time between requests by uvicorn.
        """
        owed = None
        if self.conn.their_state is h11.IDLE:
            owed = "head"
        elif self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE:
            owed = "rest of a body"
        if owed == self._owed:
            return
        if self._owed_timer:
            self._owed_timer.cancel()
        self._owed, self._owed_since = owed, self.loop.time()
        if owed:
            self._owed_timer = self.loop.call_later(self.limits.sending, self._end_waiting)

    def _end_waiting(self) -> None:
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(408, f"the head of the request did not arrive within {self.limits.sending:g} seconds")
        else:
            self.transport.close()

    def _expect_reading(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        self._stalled_timer = self.loop.call_later(self.limits.stalled, self._check_reading, unsent)

    def _check_reading(self, unsent: int) -> None:
        """Drop the connection if the client has read nothing since `unsent` bytes were unsent."""
        if self.transport.get_write_buffer_size() < unsent:
            self._expect_reading()
        else:
            self.drop()

    def _leave_cycle(self) -> None:
        """Let the application know that nobody gets its answer."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _refuse(self, status: int, message: str) -> None:
        """Answer with an error, which is reported, unless an answer has begun, and close the connection."""
        self._leave_cycle()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = as_json(RefusedError(status, message).as_dict())
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            answer = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            seconds = self.loop.time() - self._owed_since
            self.config.report(RequestRecord("other", "other", status, seconds, hint=message))
        self.transport.close()
