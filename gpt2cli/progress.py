"""The events of work that takes a while, such as a download, and the type of the function that receives them."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Received:
    """`done` of the `total` bytes of a file are there."""

    file: str
    done: int
    total: int


@dataclass(frozen=True)
class Note:
    """A remark for the person who waits, in one line."""

    text: str


Progress = Callable[[Received | Note], None]
"""A function that is called with each event."""


def ignore(event: Received | Note) -> None:
    """A `Progress` that does nothing."""
