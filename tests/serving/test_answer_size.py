"""The bounds for the answer to one request."""

from typing import Any

import pytest

from gpt2cli.prompts import ALPACA
from gpt2cli.serving.chat_fields import chat_request
from gpt2cli.serving.completion_fields import completion_request
from gpt2cli.serving.refused_error import RefusedError
from tests.serving.served_models import described_model

MODEL = described_model(ALPACA)


def read(fields: dict[str, Any]) -> object:
    if "messages" in fields:
        return chat_request(fields, MODEL)
    return completion_request(fields, MODEL)


CHAT = {"messages": [{"role": "user", "content": "Hi"}], "logprobs": True}


@pytest.mark.parametrize(
    ("most", "more", "param", "part"),
    [
        (
            {"max_tokens": 1_000_000},
            {"n": 2},
            "max_tokens",
            "2 texts may have 2,000,000 new tokens, more than 1,000,000",
        ),
        ({"max_tokens": 10_000, "n": 100}, {"prompt": ["a", "b"]}, "max_tokens", "200 texts may have 2,000,000 new"),
        ({"max_tokens": 200_000, "logprobs": 0}, {"logprobs": 1}, "logprobs", "400,000 log-probabilities, more than"),
        ({"max_tokens": 10_000, "logprobs": 19}, {"logprobs": 20}, "logprobs", "210,000 log-probabilities"),
        ({"max_tokens": 2000, "logprobs": 0, "n": 100}, {"n": 101}, "logprobs", "202,000 log-probabilities"),
        (
            {"prompt": ["a" + " a" * 199] * 100, "echo": True, "logprobs": 9, "max_tokens": 0},
            {"max_tokens": 1},
            "logprobs",
            "201,000 log-probabilities",
        ),
        (CHAT | {"top_logprobs": 19, "max_tokens": 10_000}, {"top_logprobs": 20}, "logprobs", "210,000"),
    ],
)
def test_an_answer_may_have_the_most_and_no_more(
    most: dict[str, Any], more: dict[str, Any], param: str, part: str
) -> None:
    read(most)
    with pytest.raises(RefusedError) as raised:
        read(most | more)
    assert (raised.value.status, raised.value.param) == (400, param)
    assert part in raised.value.message
    assert "lower max_tokens" in raised.value.message


def test_without_logprobs_the_number_of_tokens_alone_counts() -> None:
    read({"max_tokens": 1_000_000})
    read({"prompt": ["a" * 200] * 2000, "echo": True, "max_tokens": 500})
