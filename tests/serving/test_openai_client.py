"""The `openai` package as a client, over a socket."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.completion import Completion

from gpt2cli.config import SamplingConfig
from gpt2cli.generation.logprobs import prompt_logprobs
from gpt2cli.generation.text import TextGeneration
from gpt2cli.serving.text_pieces import token_name
from gpt2cli.tokenizer import END_OF_TEXT_ID, decode, encode
from tests.models import tiny
from tests.serving.live_server import DIVERGES_AT, LiveServer, diverging, live_server, small
from tests.serving.small_server import wait_until

PROMPT = "The old man said: “I"
ENDLESS: dict[str, Any] = {"max_tokens": 10**6, "logit_bias": {str(END_OF_TEXT_ID): -100}}
"""A text that does not end by itself."""
EXTRAS = {"top_k": 0, "repetition_penalty": 1.3}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server(tiny("int8")) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[OpenAI]:
    with server.client() as client:
        yield client


def generated(sampling: SamplingConfig, logprobs: int | None = None, prompt: str = PROMPT) -> TextGeneration:
    """What `gpt2 generate` generates."""
    run = TextGeneration.from_text(tiny("int8"), prompt, sampling, logprobs)
    list(run)
    return run


def complete(client: OpenAI, prompt: Any = PROMPT, **options: Any) -> Completion:
    found = client.completions.create(model="tiny", prompt=prompt, **options)
    assert isinstance(found, Completion)
    return found


def chunks(client: OpenAI, prompt: Any = PROMPT, **options: Any) -> list[Completion]:
    return list(client.completions.create(model="tiny", prompt=prompt, stream=True, **options))


def ask(client: OpenAI, words: str = "Name three colours.", **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": words}]
    return client.chat.completions.create(model="tiny", messages=messages, **options)


def test_texts_are_those_of_generate_seed_for_seed(client: OpenAI) -> None:
    sampling = SamplingConfig(
        max_new_tokens=30, temperature=0.9, top_k=0, repetition_penalty=1.3, seed=5, num_samples=3
    )
    expected = generated(sampling)
    found = complete(client, n=3, seed=5, max_tokens=30, temperature=0.9, extra_body=EXTRAS)
    assert [choice.text for choice in found.choices] == [sample.text for sample in expected.samples]
    assert found.usage is not None
    assert found.usage.prompt_tokens == len(encode(PROMPT))
    assert found.usage.completion_tokens == 90
    assert found.system_fingerprint is not None and found.system_fingerprint.startswith("fp_")


def test_fields_that_are_left_out_have_the_defaults_of_generate(client: OpenAI) -> None:
    assert complete(client, seed=9).choices[0].text == generated(SamplingConfig(seed=9)).samples[0].text


def test_several_prompts_of_each_kind(client: OpenAI) -> None:
    texts = [PROMPT, "Once"]
    of_texts = complete(client, texts, n=2, seed=3, max_tokens=8)
    of_ids = complete(client, [encode(text) for text in texts], n=2, seed=3, max_tokens=8)
    assert [choice.index for choice in of_texts.choices] == [0, 1, 2, 3]
    found = [choice.text for choice in of_texts.choices]
    assert found == [choice.text for choice in of_ids.choices]
    alone = [complete(client, text, n=2, seed=3, max_tokens=8) for text in texts]
    assert found == [choice.text for each in alone for choice in each.choices]
    assert complete(client, encode(PROMPT), seed=3, max_tokens=8).choices[0].text == found[0]


@pytest.mark.parametrize("echo", [False, True])
def test_the_chunks_of_a_stream_are_the_whole_answer(client: OpenAI, echo: bool) -> None:
    options: dict[str, Any] = {"n": 2, "seed": 8, "max_tokens": 25, "logprobs": 2, "echo": echo}
    whole = complete(client, [PROMPT, "A"], **options)
    parts = [chunk.choices[0] for chunk in chunks(client, [PROMPT, "A"], **options)]
    for choice in whole.choices:
        own = [part for part in parts if part.index == choice.index]
        assert "".join(part.text for part in own) == choice.text
        assert [part.finish_reason for part in own] == [None] * (len(own) - 1) + [choice.finish_reason]
        assert choice.logprobs is not None
        for name, entries in choice.logprobs.model_dump().items():
            assert [each for part in own if part.logprobs for each in getattr(part.logprobs, name)] == entries


def test_logprobs_are_those_of_generate(client: OpenAI) -> None:
    [expected] = generated(SamplingConfig(max_new_tokens=20, seed=4), logprobs=3).samples
    logprobs = complete(client, seed=4, max_tokens=20, logprobs=3).choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == [token_name(token) for token in expected.tokens]
    assert logprobs.token_logprobs == [entry.logprob for entry in expected.logprobs]
    assert logprobs.top_logprobs is not None
    for found, entry in zip(logprobs.top_logprobs, expected.logprobs, strict=True):
        likeliest = {token_name(each.id): each.logprob for each in entry.top}
        assert found == likeliest | {token_name(entry.id): entry.logprob}


@pytest.mark.parametrize("max_tokens", [0, 1, 12])
def test_echo_gives_the_prompt_and_the_text_with_all_logprobs(client: OpenAI, max_tokens: int) -> None:
    ids = encode(PROMPT)
    options: dict[str, Any] = {"seed": 4, "max_tokens": max_tokens, "logprobs": 1}
    [new] = complete(client, **options).choices
    [choice] = complete(client, echo=True, **options).choices
    assert choice.text == PROMPT + new.text
    assert choice.logprobs is not None and new.logprobs is not None
    assert choice.logprobs.token_logprobs is not None
    assert choice.logprobs.token_logprobs[0] is None
    of_prompt = [entry.logprob for entry in prompt_logprobs(tiny("int8"), ids)]
    assert choice.logprobs.token_logprobs[1 : len(ids)] == of_prompt
    assert choice.logprobs.token_logprobs[len(ids) :] == new.logprobs.token_logprobs
    assert choice.logprobs.text_offset is not None and choice.logprobs.tokens is not None
    for start, name in zip(choice.logprobs.text_offset, choice.logprobs.tokens, strict=True):
        assert name.startswith("bytes:") or choice.text.startswith(name, start)


def test_a_batch_has_the_logprobs_of_single_requests(client: OpenAI) -> None:
    """What lm-evaluation-harness sends."""
    options: dict[str, Any] = {"max_tokens": 1, "temperature": 0, "seed": 1234, "logprobs": 1, "echo": True}
    prompts = [encode("The sky is blue"), encode("A"), [END_OF_TEXT_ID, *encode("Once upon a time")]]
    batch = complete(client, prompts, **options)
    for prompt, choice in zip(prompts, batch.choices, strict=True):
        assert choice.logprobs == complete(client, [prompt], **options).choices[0].logprobs
        assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
        assert len(choice.logprobs.token_logprobs) == len(prompt) + 1


def test_an_end_of_text_is_an_entry_of_the_logprobs(client: OpenAI) -> None:
    found = complete(client, max_tokens=5, echo=True, logprobs=0, logit_bias={str(END_OF_TEXT_ID): 100})
    [choice] = found.choices
    assert (choice.text, choice.finish_reason) == (PROMPT, "stop")
    assert choice.logprobs is not None and choice.logprobs.tokens is not None
    assert choice.logprobs.tokens[-1] == "<|endoftext|>"
    assert len(choice.logprobs.tokens) == len(encode(PROMPT)) + 1
    assert found.usage is not None and found.usage.completion_tokens == 1


def test_a_text_ends_before_a_stop_text(client: OpenAI) -> None:
    whole = complete(client, seed=2, max_tokens=40).choices[0].text
    stop = whole[10:14]
    [choice] = complete(client, seed=2, max_tokens=40, stop=[stop, "never"]).choices
    assert (choice.text, choice.finish_reason) == (whole[: whole.index(stop)], "stop")
    parts = [chunk.choices[0] for chunk in chunks(client, seed=2, max_tokens=40, stop=stop)]
    assert "".join(part.text for part in parts) == choice.text
    assert parts[-1].finish_reason == "stop"


@pytest.mark.parametrize("kind", ["completion", "chat"])
def test_a_stream_has_a_usage_chunk_if_it_is_wanted(client: OpenAI, kind: str) -> None:
    options: dict[str, Any] = {"max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}}
    create: Any = ask if kind == "chat" else complete_stream
    *others, last = list(create(client, **options))
    assert last.choices == []
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    assert last.usage.completion_tokens == 3
    assert all(chunk.usage is None for chunk in others)


def complete_stream(client: OpenAI, **options: Any) -> Any:
    return client.completions.create(model="tiny", prompt=PROMPT, **options)


def test_a_chat_is_the_same_whole_and_as_a_stream(client: OpenAI) -> None:
    options: dict[str, Any] = {"n": 2, "seed": 1, "max_completion_tokens": 40, "logprobs": True, "top_logprobs": 2}
    whole = ask(client, **options)
    parts = [chunk.choices[0] for chunk in ask(client, stream=True, **options)]
    for choice in whole.choices:
        content = choice.message.content
        assert content and content == content.strip()
        assert choice.message.role == "assistant"
        own = [part for part in parts if part.index == choice.index]
        assert own[0].delta.role == "assistant"
        assert "".join(part.delta.content or "" for part in own) == content
        assert own[-1].finish_reason == choice.finish_reason
        entries = [each for part in own if part.logprobs for each in part.logprobs.content]
        assert entries == choice.logprobs.content
        assert b"".join(bytes(each.bytes) for each in entries).decode().strip() == content
        assert all(len(each.top_logprobs) == 2 for each in entries)


def test_a_chat_reads_the_earlier_messages(client: OpenAI) -> None:
    messages: Any = [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "Name a colour."},
        {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": [{"type": "text", "text": "Name another."}]},
    ]
    long = client.chat.completions.create(model="tiny", messages=messages, temperature=0, max_tokens=5)
    short = client.chat.completions.create(model="tiny", messages=messages[-1:], temperature=0, max_tokens=5)
    assert long.usage is not None and short.usage is not None
    assert long.usage.prompt_tokens > short.usage.prompt_tokens


def test_models_are_listed_and_retrieved(client: OpenAI) -> None:
    [model] = client.models.list().data
    assert model.id == "tiny"
    assert client.models.retrieve("tiny") == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


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


def test_a_stream_that_is_closed_frees_its_slot(server: LiveServer, client: OpenAI) -> None:
    with client.completions.create(model="tiny", prompt=PROMPT, stream=True, **ENDLESS) as stream:
        next(iter(stream))
        assert server.engine.load().busy_slots == 1
    server.check_is_free()
    assert 499 in [record.status for record in server.records]


def test_a_client_that_stops_waiting_for_a_whole_answer_frees_its_slots(server: LiveServer, client: OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).completions.create(model="tiny", prompt=PROMPT, n=3, **ENDLESS)
    server.check_is_free()


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
        return complete(client, "A", max_tokens=5, temperature=0).choices

    def diverges(number: int) -> None:
        prompt = [464] * (DIVERGES_AT - number)
        with pytest.raises(openai.APIError, match="not finite"):
            list(client.completions.create(model="tiny", prompt=prompt, stream=stream, **ENDLESS))

    with live_server(diverging()) as server, server.client() as client, ThreadPoolExecutor(8) as pool:
        alone = fine(0)
        failures = pool.map(diverges, range(-2, 10))
        assert [*pool.map(fine, range(12))] == [alone] * 12
        assert [*failures] == [None] * 12
        statuses = [record.status for record in server.records]
        assert (statuses.count(200), statuses.count(500)) == (13, 12)
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


def test_a_text_is_sent_as_it_is_written(client: OpenAI) -> None:
    """Without escapes, so that people can read it."""
    found = httpx.post(
        f"{client.base_url}completions", json={"prompt": "“Café”", "max_tokens": 0, "echo": True}, timeout=60
    )
    assert "“Café”" in found.content.decode()
    assert found.json()["choices"][0]["text"] == decode(encode("“Café”"))
