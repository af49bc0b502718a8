"""Describes the fields of the configs: default, bounds and help in one place.

The command line takes its options from these fields (cli/config_options.py), and every config checks its values by
their base class `Checked`.
"""

import math
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal, get_args, get_origin

from gpt2cli.errors import UsageError
from gpt2cli.suggestions import did_you_mean
from gpt2cli.untrusted import shown


class FieldError(UsageError):
    """A wrong value of a config's field. The message is the field's name (or a sum of several) and the problem."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.name, self.problem = name, problem


@dataclass(frozen=True)
class Bounds:
    """The values that a field may have, in words and as a function."""

    words: str
    allow: Callable[[Any], bool]


WHOLE = Bounds("a whole number of at least 1", lambda value: type(value) is int and value >= 1)
AT_LEAST_1 = Bounds("1 or more", lambda value: value >= 1)
AT_LEAST_2 = Bounds("2 or more", lambda value: value >= 2)
NOT_NEGATIVE = Bounds("0 or more", lambda value: value >= 0)
OFF_AT_0 = Bounds("0 (off) or more", lambda value: value >= 0)
NEVER_AT_0 = Bounds("0 (never) or more", lambda value: value >= 0)
POSITIVE = Bounds("above 0", lambda value: value > 0)
FINITE_POSITIVE = Bounds("a finite number above 0", lambda value: 0 < value < math.inf)
FINITE_NOT_NEGATIVE = Bounds("a finite number, 0 or more", lambda value: 0 <= value < math.inf)
BELOW_1 = Bounds("at least 0 and below 1", lambda value: 0 <= value < 1)
UP_TO_1 = Bounds("above 0 and at most 1", lambda value: 0 < value <= 1)
FROM_0_TO_1 = Bounds("from 0 to 1", lambda value: 0 <= value <= 1)
FROM_1_TO_1000 = Bounds("from 1 to 1,000", lambda value: 1 <= value <= 1000)
SEED = Bounds("from 0 to 2^63 - 1", lambda value: 0 <= value < 2**63)


def described(
    default: Any,
    bounds: Bounds | None = None,
    help: str = "",
    *,
    means: str = "",
    name: str = "",
    in_identity: bool = True,
) -> Any:
    """A dataclass field with a description. A Literal type needs no bounds.

    means        what the default means, if its value does not say it
    name         the name in options and errors, if it is not the field's
    in_identity  whether checkpoints record the value: a run with another one cannot resume from them
    """
    described = {"bounds": bounds, "help": help, "means": means, "name": name, "in_identity": in_identity}
    return field(default=default, metadata=described)


def choices(annotation: Any) -> tuple[str, ...]:
    """The values of a Literal type; none for any other type."""
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def one_of(allowed: tuple[str, ...]) -> Bounds:
    return Bounds(f"{', '.join(allowed[:-1])} or {allowed[-1]}", lambda value: value in allowed)


class Checked:
    """The base of the configs: it checks the fields of every new object.

    Raises FieldError if a value is outside its bounds. None is allowed where it is the default.
    """

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            check_field(each, getattr(self, each.name), each.metadata.get("name") or each.name)


def check_field(field: Field[Any], value: Any, name: str) -> None:
    """Raise FieldError, with this name, if the value is outside the field's bounds. None is allowed as a default."""
    allowed = choices(field.type)
    bounds = one_of(allowed) if allowed else field.metadata.get("bounds")
    if bounds and not (value is None and field.default is None):
        guess = did_you_mean(value, allowed) if allowed and isinstance(value, str) else ""
        check(bounds.allow(value), name, bounds.words, f"{shown(value)}: {guess}" if guess else shown(value))


def check(holds: bool, name: str, words: str, value: str) -> None:
    """Raise FieldError unless `holds`. The message says that `name` must be `words`, and shows the value."""
    if not holds:
        raise FieldError(name, f"must be {words}, not {value}")
