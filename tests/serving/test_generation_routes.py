"""From the body of a request to its answer, with a scripted engine: statuses, cancellation, and what is logged."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from gpt2cli.config import ServeConfig
from gpt2cli.errors import DivergedError
from gpt2cli.serving import generation_routes
from gpt2cli.serving.app import answering
from gpt2cli.serving.engine import EndingError, QueueFullError
from gpt2cli.serving.request_log import RequestLog
from gpt2cli.serving.service import RequestRecord, Service
from gpt2cli.serving.text_request import RequestFailed
from gpt2cli.tokenizer import encode
from tests.serving.scripted import MODEL, Call, ScriptedEngine, text_events, until

pytestmark = pytest.mark.anyio
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
BODIES: dict[str, dict[str, Any]] = {
    COMPLETIONS: {"prompt": "The cat"},
    CHAT: {"messages": [{"role": "user", "content": "Who?"}]},
}
both_paths = pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
streamed_or_not = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
CAT = encode(" cat sat")


@dataclass
class Server:
    """The routes that generate, over a scripted engine."""

    engine: ScriptedEngine = field(default_factory=ScriptedEngine)
    records: list[RequestRecord] = field(default_factory=list)
    is_loaded: bool = True

    def __post_init__(self) -> None:
        service = Service(ServeConfig(), self.records.append)
        if self.is_loaded:
            service.begin(MODEL, self.engine)
        routes = generation_routes.routes(service)
        self.app = RequestLog(answering(routes), service, routes)

    def call(self, path: str = COMPLETIONS, **fields: Any) -> Call:
        return Call(self.app, path, BODIES.get(path, {}) | fields)

    async def called(self, path: str = COMPLETIONS, **fields: Any) -> Call:
        """A call whose request the engine has."""
        call = self.call(path, **fields)
        await until(lambda: self.engine.jobs)
        return call

    @property
    def status(self) -> int:
        [record] = self.records
        return record.status


@both_paths
@streamed_or_not
async def test_an_answer_has_the_text_and_its_record_the_counts(path: str, stream: bool) -> None:
    server = Server()
    call = await server.called(path, stream=stream)
    [job] = server.engine.jobs
    for event in text_events(CAT):
        job.deliver(event)
    await call.task
    assert call.status == 200
    assert "cat" in call.body
    assert call.headers["content-type"].startswith("text/event-stream" if stream else "application/json")
    [record] = server.records
    assert (record.path, record.status, record.new_tokens) == (path, 200, 2)
    assert record.prompt_tokens == len(job.waiting[0][1].ids)
    assert record.first_text is not None
    assert 0 <= record.first_text <= record.seconds
    assert job.is_cancelled  # cancelling a complete request changes nothing


@both_paths
@streamed_or_not
@pytest.mark.parametrize("delivered", [0, 2], ids=["before the first event", "in the middle"])
async def test_a_client_that_leaves_cancels_its_request(path: str, stream: bool, delivered: int) -> None:
    server = Server()
    call = await server.called(path, stream=stream)
    [job] = server.engine.jobs
    for event in [*text_events(CAT)][:delivered]:
        job.deliver(event)
    if delivered and stream:
        await until(lambda: call.sent)
    assert not job.is_cancelled
    call.leave()
    await call.task
    assert job.is_cancelled
    assert server.status == 499
    assert "[DONE]" not in call.body


@both_paths
@streamed_or_not
async def test_a_task_that_is_cancelled_cancels_its_request(path: str, stream: bool) -> None:
    server, tasks = Server(), asyncio.all_tasks()
    call = await server.called(path, stream=stream)
    call.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.task
    assert server.engine.jobs[0].is_cancelled
    await until(lambda: asyncio.all_tasks() == tasks)  # nothing watches the client any more


@streamed_or_not
async def test_an_answer_leaves_no_task_behind(stream: bool) -> None:
    server, tasks = Server(), asyncio.all_tasks()
    call = await server.called(stream=stream)
    for event in text_events(CAT):
        server.engine.jobs[0].deliver(event)
    await call.task
    await until(lambda: asyncio.all_tasks() == tasks)


@both_paths
@streamed_or_not
async def test_a_model_that_fails_is_500(path: str, stream: bool) -> None:
    server = Server()
    call = await server.called(path, stream=stream)
    server.engine.jobs[0].deliver(RequestFailed(DivergedError("the logits are not finite")))
    await call.task
    assert (call.status, server.status) == (500, 500)
    assert call.headers["x-should-retry"] == "false"
    assert '"message":"the logits are not finite","type":"server_error"' in call.body


@both_paths
async def test_a_model_that_fails_in_mid_stream_ends_it_with_an_error(path: str) -> None:
    server = Server()
    call = await server.called(path, stream=True)
    job = server.engine.jobs[0]
    for event in [*text_events(CAT)][:2]:
        job.deliver(event)
    await until(lambda: "cat" in call.body)
    job.deliver(RequestFailed(DivergedError("the logits are not finite")))
    await call.task
    assert call.chunks[-1] == {
        "error": {
            "message": "the logits are not finite",
            "type": "server_error",
            "param": None,
            "code": None,
        }
    }
    assert call.sent[-1]["more_body"] is False
    assert (call.status, server.status) == (200, 500)


async def test_a_client_that_does_not_take_the_error_either_is_no_bug() -> None:
    server = Server()
    call = await server.called(stream=True)
    [job] = server.engine.jobs
    job.deliver(next(text_events(CAT)))
    await until(lambda: call.sent)
    call.is_stuck = True
    job.deliver(RequestFailed(DivergedError("the logits are not finite")))
    await until(lambda: call.waits)
    call.leave()
    await call.task
    assert (server.status, server.records[0].bug) == (500, None)


@streamed_or_not
@pytest.mark.parametrize(("refusal", "status"), [(QueueFullError(7), 429), (EndingError(), 503)])
async def test_an_engine_that_takes_no_request(stream: bool, refusal: Exception, status: int) -> None:
    server = Server(ScriptedEngine(refusal))
    call = server.call(stream=stream)
    await call.task
    assert (call.status, server.status) == (status, status)
    assert call.headers.get("retry-after") == ("7" if status == 429 else None)


@both_paths
async def test_while_the_model_is_loaded_the_answer_is_503(path: str) -> None:
    server = Server(is_loaded=False)
    call = server.call(path)
    await call.task
    assert (call.status, server.status) == (503, 503)


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"temperature": "hot"}, 400, "temperature"),
        ({"temperature": -1}, 400, "temperature"),
        ({"top_p": 2}, 400, "top_p"),
        ({"model": "gpt-4"}, 404, "model"),
        ({"suffix": "end"}, 400, "suffix"),
        ({"no_such_field": 1}, 400, "no_such_field"),
        ({"prompt": [464] * 2000}, 400, "prompt"),
    ],
)
async def test_a_wrong_field_is_refused_by_name(fields: dict[str, Any], status: int, param: str) -> None:
    server = Server()
    call = server.call(**fields)
    await call.task
    assert (call.status, server.status) == (status, status)
    assert f'"param":"{param}"' in call.body
    assert not server.engine.jobs


async def test_echo_in_a_stream_sends_the_prompt_as_the_first_chunk_of_each_text() -> None:
    server = Server()
    prompts = [encode("The cat"), encode("A")]
    call = await server.called(prompt=["The cat", "A"], n=2, echo=True, stream=True, logprobs=1)
    for index in range(4):
        for event in text_events(CAT, index, prompts[index // 2]):
            server.engine.jobs[0].deliver(event)
    await call.task
    for index, prompt in enumerate(["The cat", "The cat", "A", "A"]):
        texts = [chunk["choices"][0]["text"] for chunk in call.chunks[:-1] if chunk["choices"][0]["index"] == index]
        assert texts == [prompt, " cat", " sat", ""]


async def test_requests_do_not_wait_for_each_other() -> None:
    server = Server()
    calls = [server.call(stream=number % 2 == 0) for number in range(200)]
    await until(lambda: len(server.engine.jobs) == 200)
    for job in reversed(server.engine.jobs):
        for event in text_events(CAT):
            job.deliver(event)
    await asyncio.gather(*(call.task for call in calls))
    assert [record.status for record in server.records] == [200] * 200
