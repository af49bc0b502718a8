"""The fields of completions: what they do, and which values are refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2cli.config import SamplingConfig
from gpt2cli.serving.completion_fields import NAMES, completion_request
from gpt2cli.serving.field_readers import Body
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.tokenizer import END_OF_TEXT, END_OF_TEXT_ID, decode, encode
from tests.serving.served_models import HUGE, anything, check_answer, described_model
from tests.serving.test_openai_fields import COMPLETIONS

MODEL = described_model()
PLAIN: dict[str, Any] = {"prompt": "Once upon a time", "seed": 7}


def refusal(body: Body) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        completion_request(body, MODEL)
    return caught.value


def test_absent_fields_have_the_values_of_generate() -> None:
    request = completion_request({}, MODEL)
    (text,) = request.texts
    assert text.sampling.seed is not None
    assert text.sampling == SamplingConfig(seed=text.sampling.seed)
    assert (text.ids, request.prompts) == ((END_OF_TEXT_ID,), (END_OF_TEXT,))
    assert completion_request({"prompt": ""}, MODEL).texts[0].ids == text.ids


@pytest.mark.parametrize(
    ("fields", "sampling"),
    [
        ({"top_k": 0}, SamplingConfig(top_k=0, seed=7)),
        ({"min_p": 0.1}, SamplingConfig(min_p=0.1, seed=7)),
        ({"repetition_penalty": 1.5}, SamplingConfig(repetition_penalty=1.5, seed=7)),
        ({"max_completion_tokens": 3}, SamplingConfig(max_new_tokens=3, seed=7)),
        ({"max_completion_tokens": 3, "max_tokens": 3}, SamplingConfig(max_new_tokens=3, seed=7)),
        ({"seed": -1}, SamplingConfig(seed=2**63 - 1)),
        ({"seed": -(2**63)}, SamplingConfig(seed=0)),
        ({"stop": "end"}, SamplingConfig(stop=("end",), seed=7)),
    ],
)
def test_settings_of_the_sampling(fields: Body, sampling: SamplingConfig) -> None:
    assert completion_request(PLAIN | fields, MODEL).texts[0].sampling == sampling


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        ("Hello", [[15496]]),
        (["Hello", "", "<|endoftext|>Hello"], [[15496], [50256], [50256, 15496]]),
        ([15496, 0], [[15496, 0]]),
        ([[15496], [50256, 0]], [[15496], [50256, 0]]),
    ],
)
def test_prompts_of_all_four_kinds(prompt: Any, ids: list[list[int]]) -> None:
    request = completion_request({"prompt": prompt, "n": 2, "seed": 3}, MODEL)
    assert [list(text.ids) for text in request.texts] == [each for each in ids for _ in range(2)]
    assert [text.sampling.seed for text in request.texts] == [3, 4] * len(ids)
    assert [*request.prompts] == [decode(each) for each in ids]
    assert request.prompt_tokens == sum(map(len, ids))


def test_equal_prompts_without_a_seed_get_different_seeds() -> None:
    texts = completion_request({"prompt": ["a"] * 100, "n": 2}, MODEL).texts
    assert len({text.sampling.seed for text in texts[::2]}) > 90
    assert all(
        second.sampling.seed == first.sampling.seed + 1 for first, second in zip(texts[::2], texts[1::2], strict=True)
    )


def test_the_last_seed_is_followed_by_the_first() -> None:
    request = completion_request({"seed": 2**63 - 1, "n": 2}, MODEL)
    assert [text.sampling.seed for text in request.texts] == [2**63 - 1, 0]


def test_echo_gives_the_prompt_the_same_logprobs() -> None:
    (text,) = completion_request({"echo": True, "logprobs": 0, "max_tokens": 0}, MODEL).texts
    assert (text.logprobs, text.prompt_logprobs, text.sampling.max_new_tokens) == (0, 0, 0)
    assert completion_request({"logprobs": 2}, MODEL).texts[0].prompt_logprobs is None
    assert completion_request({"echo": True}, MODEL).texts[0].prompt_logprobs is None


def test_a_prompt_may_fill_the_window_and_not_more() -> None:
    window = MODEL.config.block_size
    assert len(completion_request({"prompt": [0] * window}, MODEL).texts[0].ids) == window
    for prompt, place in (([0] * (window + 1), "prompt"), (["a", " a" * (window + 1)], "prompt[1]")):
        error = refusal({"prompt": prompt})
        assert (error.status, error.param, error.code) == (400, place, "context_length_exceeded")
        words = "the prompt has 257 tokens, and the model's maximum context length is 256"
        assert error.message == f"{words}: shorten {place}"


@pytest.mark.parametrize(
    ("fields", "param", "part"),
    [
        ({"prompt": []}, "prompt", "an empty list"),
        ({"prompt": [[]]}, "prompt[0]", "an empty list"),
        ({"prompt": [1, 2, 3, 50257]}, "prompt[3]", "from 0 to 50256, not 50257"),
        ({"prompt": [1, -1]}, "prompt[1]", "not -1"),
        ({"prompt": [1, True]}, "prompt[1]", "not true"),
        ({"prompt": [True]}, "prompt[0]", "not true"),
        ({"prompt": [1, 2.0]}, "prompt[1]", "not 2.0"),
        ({"prompt": [[1], [2, "a"]]}, "prompt[1][1]", "not 'a'"),
        ({"prompt": ["a", 1]}, "prompt[1]", "must be a text, not 1"),
        ({"prompt": [[1], "a"]}, "prompt[1]", "must be a list, not 'a'"),
        ({"prompt": {"a": 1}}, "prompt", "not an object"),
        ({"prompt": "\ud800"}, "prompt", "half a surrogate pair"),
        ({"stop": ["a", "\udfff"]}, "stop[1]", "half a surrogate pair"),
        ({"stop": ""}, "stop", "at least one character"),
        ({"stop": ["a"] * 17}, "stop", "at most 16 texts"),
        ({"stop": "a" * 1001}, "stop", "at most 16 texts of 1,000 characters"),
        ({"seed": 2**63}, "seed", "from -2^63 to 2^63 - 1"),
        ({"seed": 1.0}, "seed", "a whole number, not 1.0"),
        ({"temperature": True}, "temperature", "must be a number, not true"),
        ({"temperature": -0.1}, "temperature", "must be a finite number, 0 or more, not -0.1"),
        ({"temperature": "hot" * 100}, "temperature", "must be a number, not 'hothot"),
        ({"temperature": 10**400}, "temperature", "must be a finite number"),
        ({"top_p": 0}, "top_p", "above 0 and at most 1, not 0"),
        ({"top_k": -1}, "top_k", "0 (off) or more, not -1"),
        ({"max_tokens": -1}, "max_tokens", "max_tokens must be from 0 to 1,000,000, not -1"),
        ({"max_completion_tokens": -1}, "max_completion_tokens", "must be from 0 to 1,000,000, not -1"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "max_tokens and max_completion_tokens"),
        ({"n": 0}, "n", "from 1 to 128, not 0"),
        ({"n": 129}, "n", "from 1 to 128, not 129"),
        ({"n": 128, "prompt": ["a"] * 17}, "prompt", "2,176 texts, more than 2,048"),
        ({"prompt": ["a"] * 999_999 + [1]}, "prompt", "1,000,000 texts, more than 2,048"),  # refused unread
        ({"logprobs": 21}, "logprobs", "from 0 to 20, not 21"),
        ({"max_tokens": 10**400}, "max_tokens", "from 0 to 1,000,000, not a number of more"),
        ({"repetition_penalty": 1e-300}, "repetition_penalty", "from 0.01 to 100, not 1e-300"),
        ({"logit_bias": dict.fromkeys(map(str, range(50257)), -100)}, "logit_bias", "excludes all tokens"),
        ({"logprobs": True}, "logprobs", "a whole number, not true"),
        ({"frequency_penalty": 2.1}, "frequency_penalty", "from -2 to 2, not 2.1"),
        ({"logit_bias": {"50257": 1}}, "logit_bias", "'50257', which is not a token id from 0 to 50256"),
        ({"logit_bias": {"01": 1}}, "logit_bias", "'01'"),
        ({"logit_bias": {"١": 1}}, "logit_bias", "'١'"),
        ({"logit_bias": {"5": 101}}, 'logit_bias["5"]', "from -100 to 100, not 101"),
        ({"logit_bias": [1]}, "logit_bias", "must be an object, not a list"),
        ({"stream": 1}, "stream", "true or false, not 1"),
        ({"stream_options": {"include_usage": True}}, "stream_options", 'needs "stream": true'),
        (
            {"stream": True, "stream_options": {"include_usag": True}},
            "stream_options.include_usag",
            "did you mean stream_options.include_usage?",
        ),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
            "not supported",
        ),
        ({"best_of": 2}, "best_of", "equal to n"),
        ({"best_of": True}, "best_of", "a whole number"),
        ({"model": 1}, "model", "must be a text, not 1"),
        ({"temprature": 1}, "temprature", "did you mean temperature?"),
        ({"max_new_tokens": 1}, "max_new_tokens", "did you mean max_tokens?"),
        ({"messages": []}, "messages", "is not a known field: the fields are best_of, echo"),
        ({"\ud800": 1}, "'\\ud800'", "is not a known field"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(fields: Body, param: str, part: str) -> None:
    error = refusal(fields)
    assert error.param == param
    assert part in error.message
    assert len(error.message) < 500
    check_answer(error, param)


def test_another_model_is_not_found() -> None:
    error = refusal({"model": "gpt-4"})
    assert (error.status, error.code) == (404, "model_not_found")
    assert error.message == "the model 'gpt-4' is not served here: use 'tiny', or name none"


@pytest.mark.parametrize("kind", HUGE)
@pytest.mark.parametrize("name", sorted(NAMES))
def test_deeply_nested_and_huge_values_are_refused(name: str, kind: str) -> None:
    try:
        completion_request({name: HUGE[kind]}, MODEL)
    except RefusedError as error:
        check_answer(error, name)
    else:
        assert name in COMPLETIONS.labels


@settings(deadline=None, max_examples=500)
@given(st.dictionaries(st.sampled_from(sorted(NAMES)), anything, max_size=4))
def test_any_value_gives_a_request_or_a_refusal(body: dict[str, Any]) -> None:
    try:
        request = completion_request(body, MODEL)
    except RefusedError as error:
        assert error.param is not None and error.param.startswith(tuple(body))
    else:
        assert all(0 < len(text.ids) <= MODEL.config.block_size for text in request.texts)


@settings(deadline=None)
@given(anything, st.sampled_from(sorted(NAMES)))
def test_a_refusal_can_be_sent_and_names_the_field(value: Any, name: str) -> None:
    try:
        completion_request({name: value}, MODEL)
    except RefusedError as error:
        check_answer(error, name)


@given(st.text(max_size=40))
def test_a_prompt_is_read_as_by_generate(text: str) -> None:
    request = completion_request({"prompt": text}, MODEL)
    assert [*request.texts[0].ids] == (encode(text) or [END_OF_TEXT_ID])
    assert request.prompts == (text or END_OF_TEXT,)
