"""Reads the fields of a request to /v1/completions. Each field of OpenAI's is honoured or refused by name."""

from typing import Any

from gpt2cli.config import SamplingConfig
from gpt2cli.serving import generation_fields
from gpt2cli.serving.field_readers import (
    Body,
    check_names,
    entries,
    flag,
    read_field,
    refuse_unsupported,
    text,
    token_ids,
    whole_number,
    within,
    wrong,
)
from gpt2cli.serving.generation_fields import LIKELIEST, GenerationFields, check_length, read_generation_fields
from gpt2cli.serving.generation_request import GenerationRequest
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.served_model import ServedModel
from gpt2cli.tokenizer import END_OF_TEXT, decode, encode

DEFAULTS = SamplingConfig()
UNSUPPORTED: dict[str, tuple[Any, ...]] = {"suffix": ("",)}
"""Fields that are refused, with the values that ask for nothing."""
LABELS = {"user": text}
"""Fields without an effect on the text."""
NAMES = generation_fields.NAMES | {"prompt", "echo", "logprobs", "best_of", *UNSUPPORTED, *LABELS}

_Prompt = tuple[str, tuple[int, ...]]


def completion_request(body: Body, model: ServedModel) -> GenerationRequest:
    """The request in a body of JSON. Raises RefusedError (400; 404 for another model) if a field is wrong."""
    check_names(body, NAMES, generation_fields.OTHER_NAMES)
    refuse_unsupported(body, UNSUPPORTED)
    for name, reader in LABELS.items():
        read_field(body, name, reader, "")
    fields = read_generation_fields(body, model, DEFAULTS)
    if read_field(body, "best_of", whole_number, fields.n) != fields.n:
        raise RefusedError(400, "best_of must be equal to n: all texts are returned", "best_of")
    echo = read_field(body, "echo", flag, False)
    logprobs = read_field(body, "logprobs", within(LIKELIEST, whole_number), None)
    prompts = _prompts(body.get("prompt"), fields, model)
    return GenerationRequest(
        fields.texts([ids for _, ids in prompts], logprobs, logprobs if echo else None),
        tuple(written for written, _ in prompts),
        fields.n,
        echo,
        logprobs,
        fields.stream,
        fields.include_usage,
    )


def _prompts(value: Any, fields: GenerationFields, model: ServedModel) -> list[_Prompt]:
    """The prompts, each as text and as ids: of a text, a list of texts, a list of ids, or a list of lists of ids."""
    if not isinstance(value, list):
        return [_from_text("" if value is None else value, "prompt", model)]
    if not value:
        raise RefusedError(400, "prompt is an empty list: give a text, or leave it out", "prompt")
    if type(value[0]) is int:
        return [_from_ids(value, "prompt", model)]
    if not isinstance(value[0], str | list):
        raise wrong(value[0], "prompt[0]", "a text, a token id or a list of token ids")
    fields.check_count(len(value))
    read = _from_text if isinstance(value[0], str) else _from_ids
    return [read(each, place, model) for each, place in entries(value, "prompt")]


def _from_text(value: Any, place: str, model: ServedModel) -> _Prompt:
    """An empty text is the end of text, after which the model begins a new one."""
    written = text(value, place) or END_OF_TEXT
    ids = encode(written)
    check_length(ids, model, place)
    return written, tuple(ids)


def _from_ids(value: Any, place: str, model: ServedModel) -> _Prompt:
    ids = token_ids(value, place)
    if not ids:
        raise RefusedError(400, f"{place} is an empty list: give at least one token id", place)
    check_length(ids, model, place)
    return decode([*ids]), ids
