"""The values of JSON, as the files that people have hold them.

Many programs write such files, and not all of them write valid JSON. A value that JSON does not have, such as the NaN
that pandas writes for a missing one, becomes an `Unusable`. An object with two values of one name, of which Python's
parser takes the last, becomes a `RepeatedKeys`. So an error can name the record that holds it.
"""

import json
from dataclasses import dataclass
from typing import Any

MAX_DIGITS = 640
"""Digits of the longest number that is read. Python can be configured to refuse longer ones."""
_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}


@dataclass(frozen=True, slots=True)
class Unusable:
    """Stands for a value that JSON does not have. `what` names it."""

    what: str


NAN = Unusable("NaN")


class RepeatedKeys(dict[str, Any]):
    """An object in which a key has several different values. `repeated` holds these keys, and the object their last."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = {name for name, value in pairs if value != self[name]}


@dataclass(frozen=True, slots=True)
class BadLine:
    """Stands for a line that is not JSON, or a malformed row, with the reason, and the column if it is known."""

    column: int | None
    reason: str
    form: str = "JSON"


def kind_of(value: Any) -> str:
    """The kind of a value in words, with an article if English needs one."""
    if isinstance(value, Unusable):
        return value.what
    return _KINDS.get(dict if isinstance(value, dict) else type(value), "null")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else RepeatedKeys(pairs)


def _integer(digits: str) -> int | Unusable:
    return int(digits) if len(digits) <= MAX_DIGITS else Unusable(f"a number of more than {MAX_DIGITS} digits")


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_constant=Unusable)
"""Reads a text as JSON with these values. It raises JSONDecodeError, and RecursionError for a deeply nested text."""
