"""The fields of chat completions: what they do, and which values are refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2cli.config import CHAT
from gpt2cli.serving.chat_fields import NAMES, chat_request
from gpt2cli.serving.field_readers import Body
from gpt2cli.serving.generation_request import GenerationRequest
from gpt2cli.serving.refused_error import RefusedError
from tests.serving.served_models import HUGE, anything, check_answer, described_model
from tests.serving.test_openai_fields import CHATS

MODEL = described_model()
HELLO = [{"role": "user", "content": "Hello"}]
PLAIN: dict[str, Any] = {"messages": HELLO, "seed": 7}


def ids_of(request: GenerationRequest) -> list[int]:
    return [*request.texts[0].ids]


def refusal(body: Body) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        chat_request(body, MODEL)
    return caught.value


def test_absent_fields_have_the_values_of_chat() -> None:
    (text,) = chat_request({"messages": HELLO}, MODEL).texts
    assert text.sampling.seed is not None
    headings = ("### Instruction:", "### Input:", "### Response:")
    assert MODEL.template is not None and MODEL.template.headings == headings
    assert (text.sampling.max_new_tokens, text.sampling.stop) == (CHAT.max_new_tokens, headings)


def test_an_answer_also_ends_before_a_heading() -> None:
    (text,) = chat_request(PLAIN | {"stop": ["x"]}, MODEL).texts
    assert text.sampling.stop == ("x", "### Instruction:", "### Input:", "### Response:")
    (text,) = chat_request(PLAIN | {"stop": ["x"]}, described_model(None)).texts
    assert text.sampling.stop == ("x",)


@pytest.mark.parametrize(
    ("fields", "param", "part"),
    [
        ({"top_logprobs": 2}, "top_logprobs", 'needs "logprobs": true'),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "from 0 to 20, not 21"),
        ({"logprobs": 1}, "logprobs", "true or false, not 1"),
        ({"store": 0}, "store", "not supported"),
        ({"tools": {}}, "tools", "not supported"),
        ({"user": 1}, "user", "must be a text, not 1"),
        ({"metadata": []}, "metadata", "must be an object, not a list"),
        ({"echo": True}, "echo", "is not a known field"),
        ({"prompt": "a"}, "prompt", "is not a known field"),
        ({"repeat_penalty": 1.1}, "repeat_penalty", "did you mean repetition_penalty?"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "differ: give one"),
        ({"messages": None}, "messages", "must be a list, not null"),
        ({"messages": []}, "messages", "at least one message of the user"),
        ({"model": "other"}, "model", "use 'tiny'"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(fields: Body, param: str, part: str) -> None:
    error = refusal(PLAIN | fields)
    assert error.param == param
    assert part in error.message
    check_answer(error, param)


def test_a_last_message_longer_than_the_window_is_refused_with_the_counts() -> None:
    long = {"role": "user", "content": "a " * 300}
    error = refusal({"messages": [*HELLO, {"role": "assistant", "content": "Hi"}, long]})
    assert (error.status, error.param, error.code) == (400, "messages[2]", "context_length_exceeded")
    assert "maximum context length is 256" in error.message


@pytest.mark.parametrize(("lengths", "place"), [({"system": 300, "user": 5}, 0), ({"system": 5, "user": 300}, 1)])
def test_what_is_to_be_shortened_is_the_longest_message(lengths: dict[str, int], place: int) -> None:
    messages = [{"role": role, "content": "a " * length} for role, length in lengths.items()]
    error = refusal({"messages": messages})
    assert (error.code, error.param) == ("context_length_exceeded", f"messages[{place}]")
    assert error.message.endswith(f"maximum context length is 256: shorten messages[{place}]")


@pytest.mark.parametrize("kind", HUGE)
@pytest.mark.parametrize("name", sorted(NAMES))
def test_deeply_nested_and_huge_values_are_refused(name: str, kind: str) -> None:
    try:
        chat_request(PLAIN | {name: HUGE[kind]}, MODEL)
    except RefusedError as error:
        check_answer(error, name)
    else:
        assert name in CHATS.labels


@settings(deadline=None, max_examples=500)
@given(st.dictionaries(st.sampled_from(sorted(NAMES)), anything, max_size=4))
def test_any_value_gives_a_request_or_a_refusal(fields: dict[str, Any]) -> None:
    body = PLAIN | fields
    try:
        request = chat_request(body, MODEL)
    except RefusedError as error:
        assert error.param is not None and error.param.startswith(tuple(body))
    else:
        assert all(0 < len(text.ids) <= MODEL.config.block_size for text in request.texts)


@settings(deadline=None)
@given(anything, st.sampled_from(sorted(NAMES)))
def test_a_refusal_can_be_sent_and_names_the_field(value: Any, name: str) -> None:
    try:
        chat_request(PLAIN | {name: value}, MODEL)
    except RefusedError as error:
        check_answer(error, name)
