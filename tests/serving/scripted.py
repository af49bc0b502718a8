"""Requests and events without an engine, and a client that a test plays."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from starlette.types import ASGIApp, Message

from gpt2cli.config import GPTConfig, SamplingConfig
from gpt2cli.generation.logprobs import LikelyToken, TokenLogprobs
from gpt2cli.prompts import ALPACA
from gpt2cli.serving.engine import Engine
from gpt2cli.serving.generation_request import GenerationRequest
from gpt2cli.serving.jobs import Deliver, Job
from gpt2cli.serving.served_model import ServedModel
from gpt2cli.serving.text_request import NewText, PromptRead, TextEnd, TextEvent, TextRequest
from gpt2cli.tokenizer import StreamDecoder, decode, show

MODEL = ServedModel("tiny", 1, GPTConfig(), "fp32", "cpu", ALPACA, False, "fp_0123456789ab")


def entry(token: int, logprob: float = -1.5, top: Sequence[tuple[int, float]] = ()) -> TokenLogprobs:
    """The log-probability of a token."""
    return TokenLogprobs(
        show(token), token, logprob, tuple(LikelyToken(show(each), each, value) for each, value in top)
    )


def asked(prompts: Sequence[Sequence[int]] = ((464,),), n: int = 1, **options: Any) -> Any:
    """A request for `n` texts for each of some prompts."""
    texts = tuple(TextRequest(tuple(ids), SamplingConfig(seed=j)) for ids in prompts for j in range(n))
    return GenerationRequest(texts, tuple(decode([*ids]) for ids in prompts), n, **options)


def text_events(ids: Sequence[int], index: int = 0, prompt: Sequence[int] = ()) -> Iterator[TextEvent]:
    """The events of a text, with a NewText for each token that completes a character."""
    yield PromptRead(index, tuple(map(entry, prompt[1:])))
    characters, waiting = StreamDecoder(), list[int]()
    for token in ids:
        waiting.append(token)
        text = characters.push(token)
        if text and characters.is_empty:
            yield NewText(index, text, tuple(map(entry, waiting)))
            waiting = []
        elif text:
            yield NewText(index, text)
    rest = characters.finish()
    if rest or waiting:
        yield NewText(index, rest, tuple(map(entry, waiting)))
    yield TextEnd(index, "length", len(ids))


class ScriptedEngine(Engine):
    """Generates nothing: a test delivers the events of its jobs. `refusal` is raised instead of a new job."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.refusal = refusal
        self.jobs: list[Job] = []

    def submit(self, texts: Sequence[TextRequest], deliver: Deliver) -> Job:
        if self.refusal:
            raise self.refusal
        self.jobs.append(Job(texts, deliver))
        return self.jobs[-1]

    def cancel(self, job: Job) -> None:
        job.is_cancelled = True


class Call:
    """A request to an ASGI application by a client that the test plays, in a running event loop.

    sent      the messages of the answer so far
    is_stuck  whether the client takes no more messages, until it leaves
    waits     whether a message waits for that
    """

    def __init__(self, app: ASGIApp, path: str, body: dict[str, Any]) -> None:
        self.sent: list[Message] = []
        self.is_stuck = self.waits = False
        self._received: asyncio.Queue[Message] = asyncio.Queue()
        self._received.put_nowait({"type": "http.request", "body": json.dumps(body).encode()})
        headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
        self.task = asyncio.ensure_future(app(scope, self._received.get, self._send))

    async def _send(self, message: Message) -> None:
        while self.is_stuck:
            self.waits = True
            await asyncio.sleep(0.01)
        self.sent.append(message)

    def leave(self) -> None:
        """End the connection from the client's side. As in uvicorn, what is sent to it is lost without an error."""
        self.is_stuck = False
        self._received.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    @property
    def chunks(self) -> list[Any]:
        """The values of the server-sent events, `[DONE]` as text."""
        parts = [part.removeprefix("data: ") for part in self.body.split("\n\n") if part.startswith("data: ")]
        return [part if part == "[DONE]" else json.loads(part) for part in parts]


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the condition did not come to hold within 20 seconds")
