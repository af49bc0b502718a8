"""Typed readers for the fields of a request.

A reader takes a value of JSON and its place, such as `temperature` or `prompt[3]`. It raises RefusedError (400) for a
value of another type: the message says what the field must be and what came, and `param` is the place. `true` is not a
number. A list or an object is named by its kind only, and a long text is cut.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

from gpt2cli.bounds import Bounds
from gpt2cli.config import VOCAB_SIZE
from gpt2cli.data.json_values import kind_of
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.suggestions import did_you_mean
from gpt2cli.untrusted import is_encodable, shown, shown_name

T = TypeVar("T")
D = TypeVar("D")
Body = Mapping[str, Any]


def read_field(body: Body, name: str, reader: Callable[[Any, str], T], absent: D) -> T | D:
    """The value of a field, or `absent` if the field is absent or null."""
    value = body.get(name)
    return absent if value is None else reader(value, name)


def wrong(value: Any, place: str, words: str) -> RefusedError:
    """The error that a field must be `words`, and is not."""
    if isinstance(value, bool):
        came = str(value).lower()
    else:
        came = shown(value, 40) if isinstance(value, str | int | float) else kind_of(value)
    return RefusedError(400, f"{place} must be {words}, not {came}", place)


def flag(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise wrong(value, place, "true or false")
    return value


def whole_number(value: Any, place: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong(value, place, "a whole number")
    return value


def number(value: Any, place: str) -> float:
    """A finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong(value, place, "a number")
    try:
        converted = float(value)
    except OverflowError:
        converted = math.inf
    if not math.isfinite(converted):
        raise wrong(value, place, "a finite number")
    return converted


def text(value: Any, place: str) -> str:
    """A text of valid characters. JSON can also contain half a surrogate pair, such as "\\ud800"."""
    if not isinstance(value, str):
        raise wrong(value, place, "a text")
    if not is_encodable(value):
        raise RefusedError(400, f"{place} contains half a surrogate pair, which is not a character", place)
    return value


def some_list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise wrong(value, place, "a list")
    return value


def some_object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(value, place, "an object")
    return value


def text_or_texts(value: Any, place: str) -> tuple[str, ...]:
    """One text, or a list of any number of texts."""
    if isinstance(value, str):
        return (text(value, place),)
    if not isinstance(value, list):
        raise wrong(value, place, "a text or a list of texts")
    return tuple(text(each, where) for each, where in entries(value, place))


def token_ids(value: Any, place: str) -> tuple[int, ...]:
    """A list of any number of ids of GPT-2's vocabulary."""
    return tuple(token_id(each, where) for each, where in entries(some_list(value, place), place))


def token_id(value: Any, place: str) -> int:
    if type(value) is not int or not 0 <= value < VOCAB_SIZE:
        raise wrong(value, place, f"a token id from 0 to {VOCAB_SIZE - 1}")
    return value


def entries(values: list[Any], place: str) -> Iterator[tuple[Any, str]]:
    """Each entry of a list, with its place."""
    return ((each, f"{place}[{i}]") for i, each in enumerate(values))


def within(bounds: Bounds, reader: Callable[[Any, str], T]) -> Callable[[Any, str], T]:
    """A reader that also refuses values outside the bounds."""

    def read(value: Any, place: str) -> T:
        found = reader(value, place)
        if not bounds.allow(found):
            raise wrong(value, place, bounds.words)
        return found

    return read


def check_names(body: Body, known: Collection[str], others: Mapping[str, str]) -> None:
    """Refuse a field that is not known, with a suggestion.

    others  other programs' names for the known fields: see `suggestions.meant`
    """
    for name in body:
        if name not in known:
            guess = did_you_mean(name, known, others) or f"the fields are {', '.join(sorted(known))}"
            raise RefusedError(400, f"{shown_name(name)} is not a known field: {guess}", shown_name(name))


def refuse_unsupported(body: Body, neutral: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse fields that nothing here can do. Null is accepted, and the `neutral` values, which ask for nothing."""
    for name, accepted in neutral.items():
        value = body.get(name)
        is_flag = isinstance(value, bool)
        if value is not None and not any(isinstance(each, bool) == is_flag and each == value for each in accepted):
            raise RefusedError(400, f"{name} is not supported here: leave it out", name)
