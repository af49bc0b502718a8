"""Decides when a run evaluates, samples and saves checkpoints: every N steps if the settings say so, else by time.

By time, the three together take at most a tenth of the time that the steps take (SHARE):

- An evaluation may come at each tenth of the steps. With `--patience`, it always comes there: the evaluations then
  decide when the run ends, and the end must not depend on the clock.
- Samples may come at a third and at two thirds of the steps.
- A checkpoint may come when SECONDS_BETWEEN_SAVES of training are not saved.

Each comes only if the time that was spent so far and the time that it is expected to take fit into that tenth.
There are always an evaluation before the first step, and an evaluation and samples after the last, also in a run of
seconds, of which they take more. To make both evaluations short, validation.py limits their records.

The clock decides only about these reports. They change no step, so a resumed run still learns the same weights.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from gpt2cli.training.job import Job
from gpt2cli.training.sample_prompts import SAMPLING
from gpt2cli.training.state_json import Counters
from gpt2cli.training.validation import FORWARD

SHARE = 0.1
"""The largest part of the time of the steps that may be spent on reports."""
EVALUATIONS, SAMPLES = 10, 3
"""Into how many parts the evaluations and the samples divide a run."""
SECONDS_BETWEEN_SAVES = 300.0
BYTES, READ_PER_SECOND, WRITTEN_PER_SECOND, TOKEN_SECONDS = 4, 1e10, 2e8, 0.005
"""For guesses: the bytes of a weight, how fast a slow machine reads memory (all weights, for each new token of the
samples) and writes to disk, and the least time for a token.
"""

Kind = Literal["evaluate", "sample", "save"]
KINDS: tuple[Kind, ...] = ("evaluate", "sample", "save")


@dataclass(frozen=True)
class Due:
    """What comes after a step."""

    evaluate: bool
    sample: bool
    save: bool


class Rhythm:
    """The rhythm of one process of a run.

    intervals    the number of steps between two reports of each kind: 0 never, None by time
    total_steps  the steps of the whole run
    step         the steps that earlier processes took
    guesses      how many seconds a report of each kind may take, for the time until one was measured
    patient      whether evaluations decide when the run ends: then they come by the number of steps only
    """

    def __init__(
        self,
        intervals: Mapping[Kind, int | None],
        *,
        total_steps: int,
        step: int,
        guesses: Mapping[Kind, float],
        patient: bool = False,
    ) -> None:
        self.intervals = intervals
        self.total_steps = total_steps
        self.first_step = step
        self.expected = dict(guesses)  # seconds of the next report of each kind
        self.by_time = {kind for kind in KINDS if intervals[kind] is None} - ({"evaluate"} if patient else set())
        self.at_start = 0.0  # seconds of the evaluation before the first step
        self.spent = 0.0  # seconds of all later reports by time
        self.saved_at = 0.0  # seconds of training at the last checkpoint

    def after(self, step: int, trained: float) -> Due:
        """What is due after this step. `trained` is the time of the steps of this process, in seconds.

        The engine decides about a checkpoint after the last step.
        """
        due = dict.fromkeys(KINDS, False)
        left = self._allowed(step, trained) - self.spent if step < self.total_steps else 0.0
        for kind in KINDS:
            interval = self.intervals[kind]
            if interval == 0 or step >= self.total_steps:
                due[kind] = interval != 0 and kind != "save"
            elif interval is not None:
                due[kind] = step % interval == 0
            elif kind not in self.by_time:
                due[kind] = self._is_time(kind, step, trained)
            elif self._is_time(kind, step, trained) and self.expected[kind] <= left:
                due[kind] = True
                left -= self.expected[kind]
        return Due(**due)

    def _is_time(self, kind: Kind, step: int, trained: float) -> bool:
        if kind == "save":
            return trained - self.saved_at >= SECONDS_BETWEEN_SAVES
        parts = EVALUATIONS if kind == "evaluate" else SAMPLES
        return step * parts // self.total_steps > (step - 1) * parts // self.total_steps

    def _allowed(self, step: int, trained: float) -> float:
        """The seconds that may be spent on reports until this step, without those before the first and after the last.

        What these take is subtracted little by little, so that a long run saves its first checkpoint early.
        """
        always = self.at_start + sum(self.expected[kind] for kind in self.by_time - {"save"})
        return SHARE * trained - always * (step - self.first_step) / (self.total_steps - self.first_step)

    @contextmanager
    def spending(self, kind: Kind, step: int, trained: float) -> Iterator[None]:
        """Measure the time of a report. It includes what the reader of the events does with it, such as writing files.

        `step` and `trained` are as in `after`.
        """
        start = time.perf_counter()
        yield
        self.count(kind, time.perf_counter() - start, step, trained)

    def count(self, kind: Kind, seconds: float, step: int, trained: float) -> None:
        """Count a report that came after `step` and took `seconds`."""
        if kind == "save":
            self.saved_at = trained
        # before the first step, no best weights are written: the guess holds the time of that
        self.expected[kind] = seconds if step else self.expected[kind] + seconds
        if kind in self.by_time and step:
            self.spent += seconds
        elif kind in self.by_time:
            self.at_start = seconds


def rhythm_of(job: Job, now: Counters) -> Rhythm:
    """The rhythm of a job in this process, after what earlier processes did."""
    config = job.config
    parameters = [p for p in job.model.parameters() if p.requires_grad]
    trained, all_parameters = sum(p.numel() for p in parameters), sum(p.numel() for p in job.model.parameters())
    write_best = trained * BYTES / WRITTEN_PER_SECOND if config.save_every != 0 else 0.0
    in_a_step = now.train_seconds / now.tokens_seen if now.tokens_seen else 0.0  # seconds for a token
    forward = FORWARD * in_a_step * (job.val.n_tokens if job.val else 0)
    return Rhythm(
        {
            "evaluate": config.eval_every if job.val else 0,
            "sample": config.sample_every if job.prompts else 0,
            "save": config.save_every if job.checkpoints else 0,
        },
        total_steps=job.total_steps,
        step=now.step,
        guesses={
            "evaluate": forward + write_best,
            "sample": SAMPLING.max_new_tokens * (TOKEN_SECONDS + all_parameters * BYTES / READ_PER_SECOND),
            "save": 3 * trained * BYTES / WRITTEN_PER_SECOND,  # and two numbers of the optimizer for each weight
        },
        patient=config.patience > 0,
    )
