"""The events that an evaluation yields."""

from dataclasses import dataclass
from typing import Literal

from gpt2cli.evaluation.results import Evaluation
from gpt2cli.progress import Note


@dataclass(frozen=True)
class Advanced:
    """A model has predicted `done` of `total` tokens (`scoring`), or answered so many instructions (`answering`).

    reused  how many of the `done` are results of an interrupted run
    """

    model: str
    stage: Literal["scoring", "answering"]
    done: int
    total: int
    reused: int = 0


@dataclass(frozen=True)
class Completed:
    """The last event. The iteration deletes the partial results when it continues after this event."""

    evaluation: Evaluation


Event = Advanced | Note | Completed
