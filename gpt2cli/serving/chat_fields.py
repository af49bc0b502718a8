"""Reads the fields of a request to /v1/chat/completions. Each field of OpenAI's is honoured or refused by name."""

from dataclasses import replace
from typing import Any

from gpt2cli.config import CHAT
from gpt2cli.generation.conversation import compose, included
from gpt2cli.serving import generation_fields
from gpt2cli.serving.chat_messages import read_messages
from gpt2cli.serving.field_readers import (
    Body,
    check_names,
    flag,
    read_field,
    refuse_unsupported,
    some_list,
    some_object,
    text,
    whole_number,
    within,
)
from gpt2cli.serving.generation_fields import LIKELIEST, check_length, read_generation_fields
from gpt2cli.serving.generation_request import GenerationRequest
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.served_model import ServedModel
from gpt2cli.tokenizer import decode

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "prompt_cache_options": ({}, {"mode": "implicit"}),
    "prompt_cache_retention": ("in_memory",),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Fields that are refused, with the values that ask for nothing."""
LABELS = {
    "metadata": some_object,
    "parallel_tool_calls": flag,  # there are no tools
    "prompt_cache_key": text,
    "safety_identifier": text,
    "user": text,
}
"""Fields without an effect on the text."""
NAMES = generation_fields.NAMES | {"messages", "logprobs", "top_logprobs", *UNSUPPORTED, *LABELS}


def chat_request(body: Body, model: ServedModel) -> GenerationRequest:
    """The request in a body of JSON. Raises RefusedError (400; 404 for another model) if a field is wrong."""
    check_names(body, NAMES, generation_fields.OTHER_NAMES)
    refuse_unsupported(body, UNSUPPORTED)
    for name, reader in LABELS.items():
        read_field(body, name, reader, None)
    fields = read_generation_fields(body, model, CHAT)
    logprobs = _logprobs(body)
    ids = _prompt(body, model, fields.sampling.max_new_tokens)
    if model.template:  # an answer also ends before any heading of the template
        stop = (*fields.sampling.stop, *model.template.headings)
        fields = replace(fields, sampling=replace(fields.sampling, stop=stop))
    texts = fields.texts([ids], logprobs)
    return GenerationRequest(
        texts,
        (decode([*ids]),),
        fields.n,
        logprobs=logprobs,
        stream=fields.stream,
        include_usage=fields.include_usage,
    )


def _logprobs(body: Body) -> int | None:
    """The number of likeliest tokens to list at each place; None: no logprobs."""
    is_wanted = read_field(body, "logprobs", flag, False)
    top = read_field(body, "top_logprobs", within(LIKELIEST, whole_number), 0)
    if top and not is_wanted:
        raise RefusedError(400, 'top_logprobs needs "logprobs": true', "top_logprobs")
    return top if is_wanted else None


def _prompt(body: Body, model: ServedModel, max_new_tokens: int) -> tuple[int, ...]:
    """The tokens that `gpt2 chat --turns` reads: the newest exchanges that fit, and the last message."""
    messages = read_messages(some_list(body.get("messages"), "messages"), model.template)
    earlier = included(messages.template, messages.earlier, len(messages.earlier))
    ids, _ = compose(messages.template, earlier, messages.asked, model.config.block_size, max_new_tokens)
    check_length(ids, model, messages.place)
    return tuple(ids)
