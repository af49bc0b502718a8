"""What `find` yields: findings, notes, and the progress of long parts."""

from collections.abc import Callable
from dataclasses import dataclass

from gpt2cli.insight.findings import Finding
from gpt2cli.progress import Note


@dataclass(frozen=True)
class Advanced:
    """A part finished `done` of `total` passes."""

    part: str
    done: int
    total: int


Event = Note | Advanced | Finding
Progress = Callable[[Note | Advanced], None]
"""A function that is called with each event that is no finding."""
