"""Every field of OpenAI's chat completions is honoured or refused by name."""

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParams

from gpt2cli.config import CHAT
from gpt2cli.serving.chat_fields import NAMES, chat_request
from gpt2cli.serving.field_readers import Body
from gpt2cli.serving.generation_request import GenerationRequest
from gpt2cli.serving.refused_error import RefusedError
from tests.serving.served_models import HUGE, anything, check_answer, described_model
from tests.serving.test_completion_fields import SHARED, Honoured

MODEL = described_model()
HELLO = [{"role": "user", "content": "Hello"}]
PLAIN: dict[str, Any] = {"messages": HELLO, "seed": 7}


def ids_of(request: GenerationRequest) -> list[int]:
    return [*request.texts[0].ids]


HONOURED: Honoured = SHARED | {
    "logprobs": ({"logprobs": True}, lambda it: (it.logprobs, it.texts[0].logprobs), (0, 0)),
    "max_completion_tokens": (
        {"max_completion_tokens": 5},
        lambda it: it.texts[0].sampling.max_new_tokens,
        5,
    ),
    "messages": (
        {"messages": [{"role": "user", "content": "Goodbye"}]},
        lambda it: "\nGoodbye\n" in it.prompts[0],
        True,
    ),
    "top_logprobs": ({"logprobs": True, "top_logprobs": 20}, lambda it: it.texts[0].logprobs, 20),
}
"""For each field that is honoured: fields to add, where the request shows it, and what it shows then."""
TOOL = {"type": "function", "function": {"name": "look"}}
REFUSED = {
    "audio": {"format": "wav", "voice": "alloy"},
    "function_call": {"name": "look"},
    "functions": [{"name": "look"}],
    "modalities": ["text", "audio"],
    "model": "gpt-6",
    "moderation": {"model": "omni-moderation-latest"},
    "prediction": {"type": "content", "content": "Hello"},
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "high",
    "response_format": {"type": "json_object"},
    "service_tier": "flex",
    "store": True,
    "tool_choice": "required",
    "tools": [TOOL],
    "verbosity": "low",
    "web_search_options": {},
}
LABELS = {
    "metadata": {"for": "a test"},
    "parallel_tool_calls": False,
    "prompt_cache_key": "a",
    "safety_identifier": "someone",
    "user": "someone",
}
NEUTRAL = {
    "frequency_penalty": [0],
    "function_call": ["none", "auto"],
    "functions": [[]],
    "logit_bias": [{}],
    "logprobs": [False],
    "metadata": [{}],
    "modalities": [["text"]],
    "model": ["tiny"],
    "n": [1],
    "parallel_tool_calls": [True],
    "presence_penalty": [0],
    "prompt_cache_options": [{}, {"mode": "implicit"}],
    "prompt_cache_retention": ["in_memory"],
    "reasoning_effort": ["none"],
    "response_format": [{"type": "text"}],
    "service_tier": ["auto", "default"],
    "stop": [[]],
    "store": [False],
    "stream": [False],
    "tool_choice": ["none", "auto"],
    "tools": [[]],
    "top_logprobs": [0],
    "verbosity": ["medium"],
}
"""Values that ask for nothing."""
FIELDS = sorted({name for kind in get_args(CompletionCreateParams) for name in kind.__annotations__})


def refusal(body: Body) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        chat_request(body, MODEL)
    return caught.value


def test_the_walk_is_over_all_fields_of_openai() -> None:
    assert {"messages", "stream", "tools"} <= {*FIELDS}
    assert not {*HONOURED, *REFUSED, *LABELS} - {*FIELDS}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_openai_is_honoured_or_refused_by_name(name: str) -> None:
    assert (name in HONOURED) + (name in REFUSED) + (name in LABELS) == 1, f"decide what the field {name} does"
    plain = chat_request(PLAIN, MODEL)
    if name in HONOURED:
        fields, look, expected = HONOURED[name]
        assert look(chat_request(PLAIN | fields, MODEL)) == expected != look(plain)
    elif name in REFUSED:
        error = refusal(PLAIN | {name: REFUSED[name]})
        assert (error.status, error.param) == (404 if name == "model" else 400, name)
    else:
        assert chat_request(PLAIN | {name: LABELS[name]}, MODEL) == plain


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in ("messages", "seed")])
def test_null_and_other_values_that_ask_for_nothing_change_nothing(name: str) -> None:
    for value in (None, *NEUTRAL.get(name, [])):
        assert chat_request(PLAIN | {name: value}, MODEL) == chat_request(PLAIN, MODEL)


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
        assert name in LABELS


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
