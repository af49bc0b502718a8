"""Requests that fail or that a client gives up, with the `openai` package as the client, over a socket."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.runner import wait_until
from tests.served_process import ENDLESS
from tests.serving.live_server import DIVERGES_AT, LiveServer, diverging, live_server, small

PROMPT = "The old man said: “I"


@pytest.mark.parametrize(
    ("options", "kind", "param", "code"),
    [
        ({"temperature": -1}, openai.BadRequestError, "temperature", None),
        ({"extra_body": {"n_predict": 3}}, openai.BadRequestError, "n_predict", None),
        ({"best_of": 3}, openai.BadRequestError, "best_of", None),
        ({"prompt": "a" * 40_000}, openai.BadRequestError, "prompt", "context_length_exceeded"),
        ({"model": "gpt-4"}, openai.NotFoundError, "model", "model_not_found"),
    ],
)
def test_what_is_wrong_is_an_exception_of_the_package(
    client: OpenAI, options: dict[str, Any], kind: type[openai.APIStatusError], param: str, code: str | None
) -> None:
    with pytest.raises(kind) as raised:
        client.completions.create(**{"model": "tiny", "prompt": PROMPT} | options)
    assert (raised.value.param, raised.value.code) == (param, code)


def test_a_path_that_does_not_exist_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="/v1/embeddings does not exist"):
        client.embeddings.create(model="tiny", input="a")


def test_a_key_is_asked_for() -> None:
    with live_server(small(), key="right") as server:
        with server.client(api_key="wrong") as client, pytest.raises(openai.AuthenticationError) as raised:
            client.completions.create(model="tiny", prompt="A", max_tokens=1)
        assert raised.value.code == "invalid_api_key"
        with server.client(api_key="right") as client:
            assert client.completions.create(model="tiny", prompt="A", max_tokens=1).choices


def test_a_stream_that_is_closed_frees_its_slot(tiny_server: LiveServer, client: OpenAI) -> None:
    with client.completions.create(model="tiny", prompt=PROMPT, stream=True, **ENDLESS) as stream:
        next(iter(stream))
        assert tiny_server.engine.load().busy_slots == 1
    tiny_server.check_is_free()
    [record] = wait_until(lambda: [record for record in tiny_server.records if record.status == 499])
    assert record.new_tokens and record.first_text is not None


def test_a_client_that_stops_waiting_for_a_whole_answer_frees_its_slots(
    tiny_server: LiveServer, client: OpenAI
) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).completions.create(model="tiny", prompt=PROMPT, n=3, **ENDLESS)
    tiny_server.check_is_free()


def test_a_client_that_leaves_the_queue_does_not_get_a_slot() -> None:
    with live_server(small(), slots=1) as server, server.client() as client:
        with client.completions.create(model="tiny", prompt="A", stream=True, **ENDLESS) as stream:
            next(iter(stream))
            with pytest.raises(openai.APITimeoutError):
                client.with_options(timeout=0.5).completions.create(model="tiny", prompt="A", **ENDLESS)
            wait_until(lambda: server.engine.load().waiting_requests == 0)
            assert server.engine.load().busy_slots == 1
        server.check_is_free()


def test_a_full_queue_is_a_rate_limit() -> None:
    with live_server(small(), slots=1, max_queue=0) as server, server.client() as client:
        with client.completions.create(model="tiny", prompt="A", stream=True, **ENDLESS) as stream:
            next(iter(stream))
            with pytest.raises(openai.RateLimitError) as raised:
                client.completions.create(model="tiny", prompt="A")
            assert int(raised.value.response.headers["retry-after"]) >= 1
            assert raised.value.code == "queue_full"
        server.check_is_free()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_model_that_diverges_fails_alone(stream: bool) -> None:
    def fine(_number: int) -> Any:
        return client.completions.create(model="tiny", prompt="A", max_tokens=5, temperature=0).choices

    def diverges(number: int) -> None:
        prompt = [464] * (DIVERGES_AT - number)
        with pytest.raises(openai.APIError, match="not finite"):
            list(client.completions.create(model="tiny", prompt=prompt, stream=stream, **ENDLESS))

    with live_server(diverging()) as server, server.client() as client, ThreadPoolExecutor(8) as pool:
        alone = fine(0)
        failures = pool.map(diverges, range(-2, 10))
        assert [*pool.map(fine, range(12))] == [alone] * 12
        assert [*failures] == [None] * 12
        server.wait_for_statuses([200] * 13 + [500] * 12)
        server.check_is_free()


def test_while_the_model_is_loaded_and_while_the_server_ends_the_answer_is_503() -> None:
    with live_server(small()) as server, server.client() as client:
        server.engine.end(0)
        with pytest.raises(openai.InternalServerError) as raised:
            client.completions.create(model="tiny", prompt="A")
        assert raised.value.status_code == 503


def test_the_end_of_the_server_cuts_a_stream_with_an_error() -> None:
    with live_server(small()) as server, server.client() as client:
        stream = iter(client.completions.create(model="tiny", prompt="A", stream=True, **ENDLESS))
        next(stream)
        server.engine.end(0)
        with pytest.raises(openai.APIError, match="ended before the answer was complete"):
            list(stream)
