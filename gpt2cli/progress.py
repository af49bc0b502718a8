"""The events of a long task, such as a download, and the type of the functions that receive them."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Received:
    """`done` of the `total` bytes of a file have arrived."""

    file: str
    done: int
    total: int


@dataclass(frozen=True)
class Note:
    """A remark for the user, in one line."""

    text: str


Progress = Callable[[Received | Note], None]
"""A function that is called with each event."""


def ignore(event: object) -> None:
    """A `Progress` that does nothing."""
