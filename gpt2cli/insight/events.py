"""What `explain` yields: findings, notes, and the progress of long parts."""

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
