"""The fields that completions and chats have in common.

A field that is absent or null has the value of `gpt2 generate` or `gpt2 chat`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpt2cli.bounds import Bounds, FieldError
from gpt2cli.config import VOCAB_SIZE, SamplingConfig
from gpt2cli.generation.conversation import SEED_LIMIT
from gpt2cli.generation.decode import random_seed
from gpt2cli.serving.answer_size import MOST_NEW_TOKENS, check_answer_size
from gpt2cli.serving.field_readers import (
    Body,
    check_names,
    flag,
    number,
    read_field,
    refuse_unsupported,
    some_object,
    text,
    text_or_texts,
    whole_number,
    within,
)
from gpt2cli.serving.logit_changes import EXCLUDED
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.served_model import ServedModel
from gpt2cli.serving.text_request import TextRequest
from gpt2cli.untrusted import shown

MOST_STOPS, LONGEST_STOP = 16, 1000
"""Stop texts of a request, and characters of each."""
MOST_TEXTS = 2048
"""The most texts that one request can ask for: `n` times the number of its prompts."""

N = Bounds("from 1 to 128", lambda value: 1 <= value <= 128)
ANY_SEED = Bounds("from -2^63 to 2^63 - 1", lambda value: -SEED_LIMIT <= value < SEED_LIMIT)
PENALTY = Bounds("from -2 to 2", lambda value: -2 <= value <= 2)
BIAS = Bounds("from -100 to 100", lambda value: -100 <= value <= 100)
REPETITION = Bounds("from 0.01 to 100", lambda value: 0.01 <= value <= 100)  # with others, logits become infinite
NEW_TOKENS = Bounds(f"from 0 to {MOST_NEW_TOKENS:,}", lambda value: 0 <= value <= MOST_NEW_TOKENS)
LIKELIEST = Bounds("from 0 to 20", lambda value: 0 <= value <= 20)
"""The number of likeliest tokens at each place: `logprobs` of completions, `top_logprobs` of chats."""

_SAMPLING = {
    "temperature": number,
    "top_k": whole_number,
    "top_p": number,
    "min_p": number,
    "repetition_penalty": within(REPETITION, number),
}
_LIMITS = ("max_tokens", "max_completion_tokens")
NAMES = frozenset(
    (
        *_SAMPLING,
        *_LIMITS,
        *("model", "n", "seed", "stop", "stream", "stream_options"),
        *("frequency_penalty", "presence_penalty", "logit_bias"),
    )
)
OTHER_NAMES = {
    **dict.fromkeys(("maxnewtokens", "maxlength", "npredict", "numpredict", "maxoutputtokens"), "max_tokens"),
    **dict.fromkeys(("repeatpenalty", "repetitionpenality"), "repetition_penalty"),
    **dict.fromkeys(("stopsequences", "stopstrings", "until", "eos"), "stop"),
    **dict.fromkeys(("numsamples", "numreturnsequences", "numcompletions"), "n"),
}
"""Names of these fields in other programs, as `suggestions.meant` takes them."""


@dataclass(frozen=True)
class GenerationFields:
    """How to generate the texts of a request.

    sampling  its seed is that of the first text of each prompt; None: each prompt gets a random seed
    """

    sampling: SamplingConfig
    n: int
    stream: bool
    include_usage: bool
    frequency_penalty: float
    presence_penalty: float
    logit_bias: Mapping[int, float]

    def check_count(self, prompts: int) -> None:
        """Refuse a request for too many texts, before its prompts are read: reading a million takes seconds."""
        count = self.n * prompts
        if count > MOST_TEXTS:
            words = f"{prompts:,} prompts with n = {self.n} ask for {count:,} texts"
            raise RefusedError(400, f"{words}, more than {MOST_TEXTS:,}: send several requests", "prompt")

    def texts(
        self, prompts: Sequence[tuple[int, ...]], logprobs: int | None, prompt_logprobs: int | None = None
    ) -> tuple[TextRequest, ...]:
        """`n` texts for each prompt. Text j of a prompt has the seed + j. Raises RefusedError for too many."""
        made = []
        for ids in prompts:
            first = random_seed() if self.sampling.seed is None else self.sampling.seed
            for j in range(self.n):
                sampling = replace(self.sampling, seed=(first + j) % SEED_LIMIT)
                penalties = (self.frequency_penalty, self.presence_penalty)
                made.append(TextRequest(ids, sampling, logprobs, prompt_logprobs, *penalties, self.logit_bias))
        check_answer_size(made)
        return tuple(made)


def read_generation_fields(body: Body, model: ServedModel, defaults: SamplingConfig) -> GenerationFields:
    """Read the fields in NAMES. Raises RefusedError."""
    model.check_name(read_field(body, "model", text, model.name))
    stream = read_field(body, "stream", flag, False)
    return GenerationFields(
        _sampling(body, defaults),
        read_field(body, "n", within(N, whole_number), 1),
        stream,
        _includes_usage(body, stream),
        read_field(body, "frequency_penalty", within(PENALTY, number), 0.0),
        read_field(body, "presence_penalty", within(PENALTY, number), 0.0),
        read_field(body, "logit_bias", _biases, {}),
    )


def check_length(ids: Sequence[int], model: ServedModel, place: str) -> None:
    """Refuse a prompt of more tokens than the window."""
    window = model.config.block_size
    if len(ids) > window:
        words = f"the prompt has {len(ids):,} tokens, and the model's maximum context length is {window:,}"
        raise RefusedError(400, f"{words}: shorten {place}", place, "context_length_exceeded")


def _sampling(body: Body, defaults: SamplingConfig) -> SamplingConfig:
    """The sampling of a request. The bounds are those of SamplingConfig."""
    values: dict[str, Any] = {name: read_field(body, name, read, None) for name, read in _SAMPLING.items()}
    limit = _limit(body)
    values["max_new_tokens"] = None if limit is None else body[limit]
    seed = read_field(body, "seed", within(ANY_SEED, whole_number), None)
    values["seed"] = None if seed is None else seed % SEED_LIMIT  # a negative seed is as good as any other
    values["stop"] = read_field(body, "stop", _stop, None)
    try:
        return replace(defaults, **{name: value for name, value in values.items() if value is not None})
    except FieldError as error:
        name = limit if limit and error.name == "max_new_tokens" else error.name
        raise RefusedError(400, f"{name} {error.problem}", name) from None


def _limit(body: Body) -> str | None:
    """The name of the field that limits the new tokens, if one does."""
    read = within(NEW_TOKENS, whole_number)
    given = {name: value for name in _LIMITS if (value := read_field(body, name, read, None)) is not None}
    if len({*given.values()}) > 1:
        raise RefusedError(400, f"{' and '.join(given)} are the same setting and differ: give one", _LIMITS[0])
    return next(iter(given), None)


def _stop(value: Any, place: str) -> tuple[str, ...]:
    stops = text_or_texts(value, place)
    if len(stops) > MOST_STOPS or any(len(each) > LONGEST_STOP for each in stops):
        raise RefusedError(400, f"{place} must be at most {MOST_STOPS} texts of {LONGEST_STOP:,} characters", place)
    return stops


def _biases(value: Any, place: str) -> dict[int, float]:
    """The numbers to add to logits, by token id. In JSON, the ids are texts."""
    found = {}
    for key, bias in some_object(value, place).items():
        is_id = key.isascii() and key.isdecimal() and len(key) < 10 and str(int(key)) == key
        if not is_id or int(key) >= VOCAB_SIZE:
            words = f"{place} has the name {shown(key, 40)}, which is not a token id from 0 to {VOCAB_SIZE - 1}"
            raise RefusedError(400, words, place)
        found[int(key)] = within(BIAS, number)(bias, f'{place}["{key}"]')
    if sum(bias <= EXCLUDED for bias in found.values()) == VOCAB_SIZE:
        raise RefusedError(400, f"{place} excludes all tokens: leave at least one", place)
    return found


def _includes_usage(body: Body, stream: bool) -> bool:
    """Whether a stream ends with a chunk of token counts."""
    options = read_field(body, "stream_options", some_object, None)
    if options is None:
        return False
    if not stream:
        raise RefusedError(400, 'stream_options needs "stream": true', "stream_options")
    usage, obfuscation = "stream_options.include_usage", "stream_options.include_obfuscation"
    named = {f"stream_options.{name}": each for name, each in options.items()}
    check_names(named, (usage, obfuscation), {})
    refuse_unsupported(named, {obfuscation: (False,)})
    return read_field(named, usage, flag, False)
