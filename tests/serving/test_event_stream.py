"""Streams of server-sent events."""

import asyncio
import json
import threading
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from gpt2cli.errors import DivergedError
from gpt2cli.serving import event_stream
from gpt2cli.serving.completion_answers import CompletionAnswer
from gpt2cli.serving.event_stream import EventStream, stream_answer, whole_answer
from gpt2cli.serving.generation_events import GenerationEvents
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.text_request import NewText, RequestFailed
from gpt2cli.tokenizer import encode
from tests.serving.scripted import MODEL, asked, text_events, until

pytestmark = pytest.mark.anyio
CAT = encode(" cat sat")


class Stream:
    """A stream that is sent to a list, in a running event loop."""

    def __init__(self, **options: Any) -> None:
        self.parts: list[str] = []
        self.more = True
        self.events = GenerationEvents()
        self.stream = EventStream(self._send)
        self.answer = CompletionAnswer(asked(stream=True, **options), MODEL, 7)
        self.task = asyncio.ensure_future(stream_answer(self.events, self.answer, self.stream))

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self.parts += message["body"].decode().split("\n\n")[:-1]
            self.more = message["more_body"]


async def test_a_stream_is_chunks_and_done() -> None:
    stream = Stream()
    for event in text_events(CAT):
        stream.events.deliver(event)
    await stream.task
    assert [part[:6] for part in stream.parts] == ["data: "] * 4
    assert stream.parts[-1] == "data: [DONE]"
    assert not stream.more


async def test_a_chunk_is_sent_when_its_event_comes() -> None:
    stream = Stream()
    for number, event in enumerate(text_events(CAT)):
        stream.events.deliver(event)
        await until(lambda number=number: len(stream.parts) >= number)
    await stream.task


async def test_nothing_is_sent_before_the_first_event_so_an_error_has_its_status() -> None:
    stream = Stream()
    stream.events.deliver(RequestFailed(DivergedError("the logits are not finite")))
    with pytest.raises(RefusedError, match="the logits are not finite") as raised:
        await stream.task
    assert raised.value.status == 500
    assert not stream.stream.is_begun


async def test_while_nothing_comes_a_comment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "WAITING_SECONDS", 0.01)
    stream = Stream()
    await until(lambda: stream.parts.count(": waiting") >= 2)
    stream.events.deliver(RequestFailed(DivergedError("too late")))
    with pytest.raises(RefusedError):
        await stream.task
    assert stream.stream.is_begun


async def test_the_last_chunk_has_the_usage_if_it_is_wanted() -> None:
    stream = Stream(include_usage=True)
    for event in text_events(CAT):
        stream.events.deliver(event)
    await stream.task
    usage = '"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}'
    assert stream.parts[-2].endswith(usage)
    assert all('"usage":null' in part for part in stream.parts[:-2])


async def test_texts_come_interleaved_with_their_index() -> None:
    stream = Stream(prompts=[(1,), (2,)])
    for events in zip(text_events(CAT, 1), text_events(CAT, 0), strict=True):
        for event in events:
            stream.events.deliver(event)
    await stream.task
    assert [part[part.index('"index":') + 8] for part in stream.parts[:-1]] == ["1", "0"] * 3


async def test_a_large_chunk_is_as_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def parts(many_tokens: int) -> list[str]:
        monkeypatch.setattr(event_stream, "MANY_TOKENS", many_tokens)
        stream = Stream(prompts=[CAT * 100], echo=True, logprobs=0)
        for event in text_events(CAT, prompt=CAT * 100):
            stream.events.deliver(event)
        await stream.task
        return [part.partition('"choices"')[2] for part in stream.parts]

    assert await parts(0) == await parts(10**6)


async def test_large_json_is_made_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def recorded(value: dict[str, Any]) -> bytes:
        threads.append(threading.current_thread())
        return b"{}"

    monkeypatch.setattr(event_stream, "as_json", recorded)
    monkeypatch.setattr(event_stream, "MANY_TOKENS", 2)
    stream = Stream(prompts=[CAT * 3], echo=True, logprobs=0)
    stream.events.deliver(next(text_events(CAT, prompt=CAT * 3)))
    await until(lambda: threads)
    for event in [*text_events(CAT)][1:]:
        stream.events.deliver(event)
    await stream.task
    events = GenerationEvents()
    for event in text_events(CAT):
        events.deliver(event)
    await whole_answer(events, CompletionAnswer(asked(), MODEL, 7))
    is_other = [thread is not threading.current_thread() for thread in threads]
    assert is_other == [True, False, False, False, True]


async def test_a_whole_answer_takes_all_events() -> None:
    events = GenerationEvents()
    for event in text_events(CAT):
        events.deliver(event)
    answer = json.loads(await whole_answer(events, CompletionAnswer(asked(), MODEL, 7)))
    assert answer["choices"][0]["text"] == " cat sat"


def test_events_that_come_after_the_loop_has_ended_are_lost_without_an_error() -> None:
    async def make() -> GenerationEvents:
        return GenerationEvents()

    asyncio.run(make()).deliver(NewText(0, "late"))


async def test_a_client_that_leaves_ends_the_wait() -> None:
    events = GenerationEvents()
    messages = iter([{"type": "http.request"}, {"type": "http.disconnect"}])

    async def receive() -> Message:
        return next(messages)

    watch = asyncio.ensure_future(events.watch_client(receive))
    with pytest.raises(ClientDisconnect):
        await events.next()
    await watch
