"""The events that an evaluation yields."""

from dataclasses import dataclass
from typing import Literal

from gpt2cli.evaluation.results import Evaluation


@dataclass(frozen=True)
class Progress:
    """A model is so far with its tokens to predict (`scoring`) or its instructions (`answering`).

    `kept` of what is done was found by a run that was interrupted.
    """

    model: str
    stage: Literal["scoring", "answering"]
    done: int
    total: int
    kept: int = 0


@dataclass(frozen=True)
class Note:
    """Something worth saying."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The last event. What was kept for an interrupted run is given up when the iteration goes on behind it."""

    evaluation: Evaluation


Event = Progress | Note | Finished
