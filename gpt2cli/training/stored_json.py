"""Reads the JSON files of a run, which are untrusted, and makes dataclass objects from their values."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gpt2cli import untrusted
from gpt2cli.bounds import FieldError, check_field, choices, one_of

_MAX_BYTES = 2**24  # a real file has a few kilobytes
_WORDS: dict[Any, str] = {
    **{int: "a whole number", float: "a number", str: "a text", bool: "true or false"},
    **dict.fromkeys((list, tuple), "a list"),
}
_SHOWN = {
    **{"None": "null", "True": "true", "False": "false"},
    **{"a value of type list": "a list", "a value of type dict": "an object"},
}
"""JSON's words for what `untrusted.shown` says."""


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ValueError if the file has none or is too large, and OSError."""
    content = untrusted.read_at_most(file, _MAX_BYTES) if untrusted.is_file(file) else None
    if content is None:
        raise ValueError(f"{file.name} is missing, not a regular file, or has more than {_MAX_BYTES >> 20} MB")
    value = untrusted.parse_json(content, _object)
    if not isinstance(value, dict):
        raise ValueError(f"{file.name} is {_shown(value)}, not an object")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError if it has two values of one name."""
    if (name := untrusted.repeated_name(pairs)) is not None:
        raise ValueError(f"{untrusted.shown_name(name)} stands in it twice")
    return dict(pairs)


def _shown(value: Any) -> str:
    """A JSON value for an error message, in JSON's words."""
    shown = untrusted.shown(value)
    return _SHOWN.get(shown, shown)


def typed(value: Any, kind: Any, place: str = "") -> Any:
    """A JSON value as an object of the type `kind`. Raises FieldError, with the value's place, if it cannot be one.

    `kind` is a type of JSON's values, a dataclass, a Literal, a list, tuple or dict of such types, or one of them and
    None. An int must be a count: at least 0 and below 2^63.

    place  where the value stands in the file, such as `train.epochs`; empty for the whole file
    """
    if get_origin(kind) is UnionType and value is None:
        return None
    plain = _without_none(kind)
    origin, parts = get_origin(plain) or plain, get_args(plain)
    if is_dataclass(plain) and isinstance(value, dict):
        return _dataclass_object(value, plain, place)
    if origin is dict and isinstance(value, dict):
        return {key: typed(each, parts[1], _within(place, key)) for key, each in value.items()}
    if origin in (list, tuple) and isinstance(value, list):
        kinds = parts if origin is tuple and parts[-1] is not ... else (parts[0],) * len(value)
        if len(kinds) == len(value):
            items = zip(value, kinds, strict=True)
            return origin(typed(each, part, f"{place}[{i}]") for i, (each, part) in enumerate(items))
    if plain is Any or (origin is Literal and value in parts):
        return value
    if type(value) is int and plain in (int, float) and 0 <= value < 2**63:
        return value
    if type(value) is plain and plain is not int:
        return value
    raise FieldError(place, f"must be {_words(kind, value)}, not {_shown(value)}")


def _dataclass_object(values: Mapping[str, Any], kind: Any, place: str) -> Any:
    """An object of the dataclass `kind`. Its fields' bounds are checked first, as their words say the most."""
    hints, found = get_type_hints(kind), {}
    if unknown := set(values) - set(hints):
        raise FieldError(_within(place, min(unknown)), "is an unknown entry")
    for each in fields(kind):
        if each.name not in values and each.default is MISSING and each.default_factory is MISSING:
            raise FieldError(_within(place, each.name), "is missing")
        if each.name in values:
            value, name = values[each.name], _within(place, each.name)
            if type(value) in (int, float) or (isinstance(value, str) and choices(each.type)):
                check_field(each, value, name)
            found[each.name] = typed(value, hints[each.name], name)
    try:
        return kind(**found)
    except FieldError as error:  # about several fields
        names = [_within(place, name) if name in hints else name for name in error.name.split(" ")]
        raise FieldError(" ".join(names), error.problem) from None


def _without_none(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is UnionType else kind


def _within(place: str, name: str) -> str:
    return ".".join(filter(None, (place, untrusted.shown_name(name))))


def _words(kind: Any, value: Any) -> str:
    """What a value of this type must be, for the error about `value`."""
    plain = _without_none(kind)
    words = one_of(choices(plain)).words if choices(plain) else _WORDS.get(get_origin(plain) or plain, "an object")
    if type(value) is int and plain in (int, float):
        words += " from 0 to 2^63 - 1"
    return words if plain is kind else f"{words} or null"
