"""Reads the JSON files of a run, which are untrusted, and makes dataclass objects from their values."""

from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gpt2cli import untrusted

_MAX_BYTES = 2**24  # a real file has a few kilobytes


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ValueError if the file has none or is too large, and OSError."""
    content = untrusted.read_at_most(file, _MAX_BYTES) if untrusted.is_file(file) else None
    if content is None:
        raise ValueError(f"{file.name} is missing, not a regular file, or has more than {_MAX_BYTES >> 20} MB")
    value = untrusted.parse_json(content)
    if not isinstance(value, dict):
        raise ValueError(f"{file.name} is {untrusted.shown(value)}, not an object")
    return value


def typed(value: Any, kind: Any, name: str) -> Any:
    """A JSON value as an object of the type `kind`. Raises TypeError, with the value's name, if it cannot be one.

    `kind` is a type of JSON's values, a dataclass, a Literal, a list, tuple or dict of such types, or one of them and
    None. An int must be a count: at least 0 and below 2^63.
    """
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin is UnionType:
        return None if value is None else typed(value, parts[0], name)
    if is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        if unknown := set(value) - set(hints):
            raise TypeError(f"{name} has an unknown entry {untrusted.shown(min(unknown))}")
        return origin(**{key: typed(each, hints[key], key) for key, each in value.items()})
    if origin is dict and isinstance(value, dict):
        return {key: typed(each, parts[1], name) for key, each in value.items()}
    if origin in (list, tuple) and isinstance(value, list):
        kinds = parts if origin is tuple and parts[-1] is not ... else (parts[0],) * len(value)
        if len(kinds) == len(value):
            return origin(typed(each, part, name) for each, part in zip(value, kinds, strict=True))
    if kind is Any or (origin is Literal and value in parts):
        return value
    if type(value) is int and kind in (int, float) and 0 <= value < 2**63:
        return value
    if type(value) is kind and kind is not int:
        return value
    raise TypeError(f"{name} is {untrusted.shown(value)}")
