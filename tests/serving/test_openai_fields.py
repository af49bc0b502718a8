"""Every field of OpenAI's completions and chat completions is honoured or refused by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParams as ChatParams
from openai.types.completion_create_params import CompletionCreateParams

from gpt2cli.serving.chat_fields import chat_request
from gpt2cli.serving.completion_fields import completion_request
from gpt2cli.serving.field_readers import Body
from gpt2cli.serving.generation_request import GenerationRequest
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.served_model import ServedModel
from tests.serving.served_models import described_model

MODEL = described_model()

Honoured = dict[str, tuple[Body, Callable[[GenerationRequest], Any], Any]]
SHARED: Honoured = {
    "frequency_penalty": ({"frequency_penalty": 1}, lambda it: it.texts[0].frequency_penalty, 1.0),
    "logit_bias": ({"logit_bias": {"50256": -100}}, lambda it: it.texts[0].logit_bias, {50256: -100.0}),
    "max_tokens": ({"max_tokens": 5}, lambda it: it.texts[0].sampling.max_new_tokens, 5),
    "n": ({"n": 3}, lambda it: (it.n, [text.sampling.seed for text in it.texts]), (3, [7, 8, 9])),
    "presence_penalty": ({"presence_penalty": -2}, lambda it: it.texts[0].presence_penalty, -2.0),
    "seed": ({"seed": 8}, lambda it: it.texts[0].sampling.seed, 8),
    "stop": ({"stop": ["a", "\n"]}, lambda it: it.texts[0].sampling.stop[:2], ("a", "\n")),
    "stream": ({"stream": True}, lambda it: it.stream, True),
    "stream_options": (
        {"stream": True, "stream_options": {"include_usage": True}},
        lambda it: it.include_usage,
        True,
    ),
    "temperature": ({"temperature": 0}, lambda it: it.texts[0].sampling.temperature, 0.0),
    "top_p": ({"top_p": 0.5}, lambda it: it.texts[0].sampling.top_p, 0.5),
}


@dataclass(frozen=True)
class Schema:
    """The fields of a kind of request, by what happens to them.

    read      makes a request of a body
    plain     a body
    honoured  for each field: fields to add, where the request shows it, and what it shows then
    refused   for each field a value
    labels    for each field, which has no effect, a value
    neutral   for each field: values that ask for nothing, besides null
    """

    params: Any
    read: Callable[[Body, ServedModel], GenerationRequest]
    plain: dict[str, Any]
    honoured: Honoured
    refused: dict[str, Any]
    labels: dict[str, Any]
    neutral: dict[str, list[Any]]

    def names(self) -> list[str]:
        return sorted({name for kind in get_args(self.params) for name in kind.__annotations__})


COMPLETIONS = Schema(
    CompletionCreateParams,
    completion_request,
    {"prompt": "Once upon a time", "seed": 7},
    honoured=SHARED
    | {
        "echo": ({"echo": True}, lambda it: it.echo, True),
        "logprobs": ({"logprobs": 5}, lambda it: (it.logprobs, it.texts[0].logprobs), (5, 5)),
        "prompt": ({"prompt": "Hello"}, lambda it: (it.prompts, it.texts[0].ids), (("Hello",), (15496,))),
    },
    refused={"best_of": 3, "model": "gpt-6", "suffix": "the end."},
    labels={"user": "someone"},
    neutral={
        "best_of": [1],
        "echo": [False],
        "frequency_penalty": [0],
        "logit_bias": [{}],
        "model": ["tiny"],
        "n": [1],
        "presence_penalty": [0.0],
        "stop": [[]],
        "stream": [False],
        "suffix": [""],
    },
)
CHATS = Schema(
    ChatParams,
    chat_request,
    {"messages": [{"role": "user", "content": "Hello"}], "seed": 7},
    honoured=SHARED
    | {
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
    },
    refused={
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
        "tools": [{"type": "function", "function": {"name": "look"}}],
        "verbosity": "low",
        "web_search_options": {},
    },
    labels={
        "metadata": {"for": "a test"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "a",
        "safety_identifier": "someone",
        "user": "someone",
    },
    neutral={
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
    },
)
FIELDS = [
    pytest.param(schema, name, id=f"{schema.read.__name__}-{name}")
    for schema in (COMPLETIONS, CHATS)
    for name in schema.names()
]


PLAIN = COMPLETIONS.plain | CHATS.plain


@pytest.mark.parametrize("schema", [COMPLETIONS, CHATS], ids=["completions", "chats"])
def test_the_walk_is_over_all_fields_of_openai(schema: Schema) -> None:
    assert {*schema.plain, "stream", "logit_bias"} <= {*schema.names()}
    assert not {*schema.honoured, *schema.refused, *schema.labels} - {*schema.names()}


@pytest.mark.parametrize(("schema", "name"), FIELDS)
def test_a_field_of_openai_is_honoured_or_refused_by_name(schema: Schema, name: str) -> None:
    places = (name in schema.honoured) + (name in schema.refused) + (name in schema.labels)
    assert places == 1, f"decide what the field {name} does"
    plain = schema.read(schema.plain, MODEL)
    if name in schema.honoured:
        fields, look, expected = schema.honoured[name]
        assert look(schema.read(schema.plain | fields, MODEL)) == expected != look(plain)
    elif name in schema.refused:
        with pytest.raises(RefusedError) as caught:
            schema.read(schema.plain | {name: schema.refused[name]}, MODEL)
        assert (caught.value.status, caught.value.param) == (404 if name == "model" else 400, name)
    else:
        assert schema.read(schema.plain | {name: schema.labels[name]}, MODEL) == plain


@pytest.mark.parametrize(("schema", "name"), [field for field in FIELDS if field.values[1] not in PLAIN])
def test_null_and_other_values_that_ask_for_nothing_change_nothing(schema: Schema, name: str) -> None:
    for value in (None, *schema.neutral.get(name, [])):
        assert schema.read(schema.plain | {name: value}, MODEL) == schema.read(schema.plain, MODEL)
