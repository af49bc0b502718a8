"""Brings the events of a request into the event loop, and stops the requests of clients that have left."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from gpt2cli.serving.engine import EndingError, Engine, QueueFullError
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.text_request import RequestFailed, TextEvent, TextRequest


class GenerationEvents:
    """The events of one request. Make it in the event loop that waits for them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._new: list[TextEvent] = []
        self._has_left = False
        self._changed = asyncio.Event()

    def deliver(self, event: TextEvent) -> None:
        """Take an event, in the engine's thread."""
        with suppress(RuntimeError):  # the loop is closed, at the end of the server
            self._loop.call_soon_threadsafe(self._add, event)

    def _add(self, event: TextEvent) -> None:
        self._new.append(event)
        self._changed.set()

    async def watch_client(self, receive: Receive) -> None:
        """Wait until the client leaves. Its request must have been read."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._has_left = True
        self._changed.set()

    async def next(self, limit: float | None = None) -> list[TextEvent]:
        """The events since the last call, at least one; none if none comes within `limit` seconds.

        Raises ClientDisconnect if the client has left, and RefusedError (500) if the request has failed.
        """
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), limit)
        self._changed.clear()
        if self._has_left:
            raise ClientDisconnect
        new, self._new = self._new, []
        for event in new:
            if isinstance(event, RequestFailed):
                raise RefusedError(500, str(event.error))
        return new


@asynccontextmanager
async def submitted(engine: Engine, texts: Sequence[TextRequest], receive: Receive) -> AsyncIterator[GenerationEvents]:
    """Ask the engine for texts. At the end of the `with` block, for any reason, it stops what is not complete.

    Only this code watches the client: `Request.is_disconnected` would take the messages, and nothing else looks for
    them while an answer is computed. Raises RefusedError (429) if too many requests wait, and (503) if the server ends.
    """
    events = GenerationEvents()
    try:
        job = engine.submit(texts, events.deliver)
    except QueueFullError as error:
        headers = {"Retry-After": str(error.retry_after)}
        message = f"too many requests wait: try again in {error.retry_after} s"
        raise RefusedError(429, message, code="queue_full", headers=headers) from None
    except EndingError:
        raise RefusedError(503, "the server is shutting down") from None
    watch = asyncio.create_task(events.watch_client(receive))
    try:
        yield events
    finally:
        engine.cancel(job)
        watch.cancel()
