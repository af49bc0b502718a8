"""What `explain` yields: findings, notes, and how far a long part is."""

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
