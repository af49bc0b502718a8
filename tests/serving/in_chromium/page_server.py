"""A server for the page that answers as a test tells it, with OpenAI's streams, and without a model."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gpt2cli.config import ServeConfig
from gpt2cli.serving import page_routes
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.service import Service

MODEL = {"id": "scripted", "max_model_len": 1024, "precision": "int8", "device": "cpu"}
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
"""What each request of the page has besides its text and its settings."""
USAGE = {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}


class PageServer:
    """What it answers can be changed at any time.

    pieces    the texts of a stream, each with one token of probability 1/e, unless `logprobs` has others
    logprobs  for each piece its tokens, as in a legacy chunk
    holds     whether a stream pauses before its last piece, until `release` is called
    breaks    a message with which a stream ends before its last piece; "" ends it without any
    refusal   the answer to requests without the key, or to all, if there is no key
    bodies    the bodies of all requests for texts
    left      set when a client leaves before the end of its stream
    """

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.reset()

    def reset(self) -> None:
        self.pieces: list[str] = ["Once", " upon", " a time."]
        self.logprobs: list[dict[str, Any]] | None = None
        self.breaks: str | None = None
        self.refusal: RefusedError | None = None
        self.key: str | None = None
        self.template = "the checkpoint's"
        self.holds = False
        self.left, self._released = threading.Event(), threading.Event()
        self.bodies.clear()

    def release(self) -> None:
        self._released.set()

    @contextmanager
    def running(self, port: int = 0) -> Iterator[str]:
        """The address of the server."""
        routes = [Route("/v1/models", self._models)]
        routes += [Route(f"/v1/{path}", self._texts, methods=["POST"]) for path in ("completions", "chat/completions")]
        app = Starlette(routes=[*page_routes.routes(Service(ServeConfig(), lambda record: None)), *routes])
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.01)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()

    def _refused(self, request: Request) -> Response | None:
        has_key = self.key is not None and request.headers.get("authorization") == f"Bearer {self.key}"
        if self.refusal is None or has_key:
            return None
        return JSONResponse(self.refusal.as_dict(), self.refusal.status, self.refusal.headers)

    async def _models(self, request: Request) -> Response:
        listed = {"object": "list", "data": [MODEL | {"prompt_template": self.template}]}
        return self._refused(request) or JSONResponse(listed)

    async def _texts(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        lines = self._lines("messages" in self.bodies[-1])
        return self._refused(request) or StreamingResponse(lines, media_type="text/event-stream")

    async def _lines(self, is_chat: bool) -> AsyncIterator[str]:
        try:
            for number, piece in enumerate(self.pieces, 1):
                is_last = number == len(self.pieces)
                while is_last and self.holds and not self._released.is_set():
                    yield ": waiting\n\n"
                    await asyncio.sleep(0.01)
                if is_last and self.breaks is not None:
                    yield self.breaks and _line({"error": {"message": self.breaks}})
                    return
                yield _line(self._chunk(is_chat, number - 1, piece, "stop" if is_last else None))
            yield _line({"choices": [], "usage": USAGE})
            yield "data: [DONE]\n\n"
        except (asyncio.CancelledError, GeneratorExit):
            self.left.set()
            raise

    def _chunk(self, is_chat: bool, number: int, piece: str, reason: str | None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason}
        if is_chat:
            choice["delta"] = {"content": piece}
        else:
            likely = {"tokens": [piece], "token_logprobs": [-1.0], "top_logprobs": [{piece: -1.0, " the": -2.0}]}
            choice |= {"text": piece, "logprobs": self.logprobs[number] if self.logprobs else likely}
        return {"choices": [choice], "usage": None}


def _line(chunk: dict[str, Any]) -> str:
    return f"data: {json.dumps(chunk)}\n\n"
