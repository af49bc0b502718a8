"""The `openai` package as a client, over a socket."""

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

PROMPT = "The old man said: “I"
EXTRAS = {"top_k": 0, "repetition_penalty": 1.3}


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


def test_a_text_is_sent_as_it_is_written(client: OpenAI) -> None:
    """Without escapes, so that people can read it."""
    found = httpx.post(
        f"{client.base_url}completions", json={"prompt": "“Café”", "max_tokens": 0, "echo": True}, timeout=60
    )
    assert "“Café”" in found.content.decode()
    assert found.json()["choices"][0]["text"] == decode(encode("“Café”"))
