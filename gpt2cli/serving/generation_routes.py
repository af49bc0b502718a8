"""POST /v1/completions and /v1/chat/completions: from the body of a request to its answer."""

import time
from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gpt2cli.errors import DataError, UsageError
from gpt2cli.serving.bodies import read_json
from gpt2cli.serving.chat_answers import ChatAnswer
from gpt2cli.serving.chat_fields import chat_request
from gpt2cli.serving.completion_answers import CompletionAnswer
from gpt2cli.serving.completion_fields import completion_request
from gpt2cli.serving.engine import Engine
from gpt2cli.serving.event_stream import EventStream, stream_answer, whole_answer
from gpt2cli.serving.generation_events import submitted
from gpt2cli.serving.generation_request import GenerationRequest
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.served_model import ServedModel
from gpt2cli.serving.service import Service
from gpt2cli.serving.text_pieces import GrowingAnswer

ReadFields = Callable[[dict[str, Any], ServedModel], GenerationRequest]


class GeneratedResponse(Response):
    """An answer that is generated while it is sent, whole or as a stream."""

    def __init__(self, engine: Engine, answer: GrowingAnswer) -> None:
        super().__init__()
        self._engine, self._answer = engine, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        counts, answer = scope["gpt2cli"], self._answer
        counts.prompt_tokens = answer.asked.prompt_tokens
        stream = EventStream(send)
        try:
            async with submitted(self._engine, answer.asked.texts, receive) as events:
                if answer.asked.stream:
                    await stream_answer(events, answer, stream)
                    return
                whole = await whole_answer(events, answer)
            await Response(whole, media_type="application/json")(scope, receive, send)
        except RefusedError as error:
            if not stream.is_begun:
                raise
            counts.status = error.status
            await stream.failed(error)
        except ClientDisconnect:
            if not stream.is_begun:  # Starlette allows no exception after the first byte
                raise
        finally:
            counts.first_text_at, counts.new_tokens = answer.first_text_at, answer.new_tokens


def routes(service: Service) -> list[Route]:
    """The paths that generate texts."""

    def route(path: str, read: ReadFields, kind: type[GrowingAnswer]) -> Route:
        async def generate(request: Request) -> Response:
            model, engine = service.loaded()
            try:
                asked = await read_json(request, lambda body: read(body, model))
            except (UsageError, DataError) as error:
                raise RefusedError(400, str(error)) from None
            return GeneratedResponse(engine, kind(asked, model, int(time.time())))

        return Route(path, generate, methods=["POST"])

    return [
        route("/v1/completions", completion_request, CompletionAnswer),
        route("/v1/chat/completions", chat_request, ChatAnswer),
    ]
