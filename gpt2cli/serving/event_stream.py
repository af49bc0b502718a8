"""Answers as streams of server-sent events (text/event-stream), as OpenAI sends them."""

from collections.abc import Iterable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.types import Send

from gpt2cli.serving.answers import as_json
from gpt2cli.serving.generation_events import GenerationEvents
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.text_pieces import GrowingAnswer

WAITING_SECONDS = 15.0
"""After this time without news, a comment tells clients and proxies that the server lives."""
MANY_TOKENS = 100
"""Chunks with log-probabilities of more tokens are made in another thread, because they take milliseconds."""

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the chunks back
]


class EventStream:
    """Sends server-sent events."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_begun = False

    async def begin(self) -> None:
        """Send the status and the headers. From now on, the answer cannot have another status."""
        self.is_begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": HEADERS})

    async def data(self, values: Iterable[dict[str, Any]], are_large: bool = False) -> None:
        """Send an event for each value, all together. Large values are made in another thread."""

        def events() -> bytes:
            return b"".join(b"data: %b\n\n" % as_json(value) for value in values)

        body = await run_in_threadpool(events) if are_large else events()
        if body:
            await self._body(body)

    async def waiting(self) -> None:
        """Send a comment, which clients skip."""
        await self._body(b": waiting\n\n")

    async def done(self) -> None:
        """End the stream of a complete answer."""
        await self._body(b"data: [DONE]\n\n", more=False)

    async def failed(self, error: RefusedError) -> None:
        """End the stream with an error."""
        await self._body(b"data: %b\n\n" % as_json(error.as_dict()), more=False)

    async def _body(self, body: bytes, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


async def stream_answer(events: GenerationEvents, answer: GrowingAnswer, stream: EventStream) -> None:
    """Send an answer in chunks as its events come. Raises RefusedError if it fails, and ClientDisconnect.

    The stream begins with the first event, so that an answer that fails before it has the status of its error.
    """
    new = await events.next(WAITING_SECONDS)
    await stream.begin()
    while True:
        pieces = [piece for event in new for piece in answer.add(event)]
        are_large = sum(len(piece.tokens) for piece in pieces) > MANY_TOKENS
        await stream.data(map(answer.chunk, pieces), are_large)
        if answer.is_complete:
            break
        if not new:
            await stream.waiting()
        new = await events.next(WAITING_SECONDS)
    if answer.asked.include_usage:
        await stream.data([answer.usage_chunk()])
    await stream.done()


async def whole_answer(events: GenerationEvents, answer: GrowingAnswer) -> bytes:
    """The JSON of an answer when it is complete. Raises RefusedError if it fails, and ClientDisconnect.

    It is made in another thread: one of many log-probabilities takes seconds, and other requests should not wait.
    """
    pieces = []
    while not answer.is_complete:
        for event in await events.next():
            pieces += answer.add(event)
    return await run_in_threadpool(lambda: as_json(answer.whole(pieces)))
