"""The outermost layer of the HTTP server: it reports each answered request, without any text of it."""

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt2cli.serving.service import RequestRecord, Service

CLIENT_LEFT = 499
"""The status in the log if the client has left before the answer was complete. No HTTP answer has it."""

PACKAGE = Path(__file__).parents[1]
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass
class RequestCounts:
    """What the log gets from the handler of a request: it is `scope["gpt2cli"]`.

    first_text_at  the value of `time.perf_counter` when the first new text came
    status         replaces the HTTP status, for a stream that failed after it began with 200
    bug            as in RequestRecord
    """

    first_text_at: float | None = None
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    status: int | None = None
    bug: str | None = None


class RequestLog:
    """Gives `service.report` one record for each request."""

    def __init__(self, app: ASGIApp, service: Service, routes: Sequence[Route]) -> None:
        self.app, self.service, self.routes = app, service, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        counts = scope["gpt2cli"] = RequestCounts()
        sent, is_complete = 500, False

        async def noting_send(message: Message) -> None:
            nonlocal sent, is_complete
            await send(message)
            if message["type"] == "http.response.start":
                sent = message["status"]
            elif message["type"] == "http.response.body":
                is_complete = not message.get("more_body", False)

        failed = False
        try:
            await self.app(scope, receive, noting_send)
        except Exception as error:
            failed, counts.bug = True, _place(error)
            raise
        finally:
            cut = 500 if failed else CLIENT_LEFT
            status = counts.status or (sent if is_complete else cut)
            self.service.report(self._record(scope, status, start, counts))

    def _record(self, scope: Scope, status: int, start: float, counts: RequestCounts) -> RequestRecord:
        return RequestRecord(
            scope["method"] if scope["method"] in METHODS else "other",
            self._pattern(scope),
            status,
            time.perf_counter() - start,
            None if counts.first_text_at is None else counts.first_text_at - start,
            counts.prompt_tokens,
            counts.new_tokens,
            bug=counts.bug,
        )

    def _pattern(self, scope: Scope) -> str:
        """The path of the request's route. A client's own path could hold anything."""
        matching = (route.path_format for route in self.routes if route.matches(scope)[0] is not Match.NONE)
        return next(matching, "other")


def _place(error: Exception) -> str:
    """Where in this package an exception comes from. Its message could quote a request."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if PACKAGE in Path(frame.filename).parents), frames[-1])
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
