"""The events of a training run: `train()` yields them, and its caller shows or stores them."""

from dataclasses import dataclass
from pathlib import Path

SMOOTHED = 20
"""The smoothed loss is the mean over at most this many steps."""


def smoothed_steps(total_steps: int) -> int:
    """The number of steps that the smoothed loss is the mean of: a tenth of the run, from 1 to SMOOTHED.

    Over more steps, the loss of a short run would seem higher than it is: the mean would hold its first steps.
    """
    return min(max(1, total_steps // 10), SMOOTHED)


@dataclass(frozen=True, kw_only=True)
class Started:
    """The run starts or, after `step` steps of earlier processes, resumes."""

    step: int  # optimizer steps taken before; 0 unless resumed
    total_steps: int
    epochs: int
    train_examples: int  # records, or blocks of plain text
    val_examples: int  # those that are held out
    val_used: int  # those of them that every evaluation of this run uses
    plain_text: bool  # whether the examples are blocks of plain text
    samples_from_training: bool  # whether the sample prompts are training examples, because none is held out
    trainable_parameters: int
    parameters: int
    noun: str = "record"  # the word for one of the examples
    before_fall: bool = False  # whether it resumes from a checkpoint as in `Saved.before_fall`


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimizer step was taken."""

    step: int  # counted from 1
    epoch: float  # epochs done, as a fraction
    loss: float  # mean over the step's targets (tokens that count in the loss), in nats
    smoothed_loss: float  # the same over the targets of the last steps, see `smoothed_steps`
    lr: float
    grad_norm: float  # before clipping
    tokens: int  # the records' own tokens in this step, over all processes
    targets: int  # those of them that count in the loss
    tok_s: float


@dataclass(frozen=True)
class Evaluated:
    """The validation loss was computed."""

    step: int
    tokens_seen: int  # training tokens so far
    val_loss: float  # mean over the split's targets, in nats
    best: bool
    is_final: bool = False  # whether these are the weights that the run ends with, which are written anyway


@dataclass(frozen=True)
class Answer:
    """The model's answer to a sample prompt, and the one in the data; None for a prompt from elsewhere."""

    prompt: str
    answer: str
    expected: str | None


@dataclass(frozen=True)
class Sampled:
    """The model answered the sample prompts."""

    step: int
    answers: list[Answer]


@dataclass(frozen=True)
class Saved:
    """A checkpoint was written."""

    step: int
    path: Path
    before_fall: bool = False  # whether it stays until the run ends, so that a longer run can go on from it


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The run ended. These are the fields of `summary.json`."""

    steps: int
    tokens_seen: int
    train_seconds: float
    train_tok_s: float
    peak_rss_mb: float
    final_train_loss: float | None  # smoothed
    final_train_loss_steps: int  # the number of last steps that it is the mean of
    final_val_loss: float | None  # of the last evaluation
    final_val_step: int | None  # the step before that evaluation
    best_val_loss: float | None
    best_val_step: int | None  # 0 if the model before training was the best
    reason: str  # "done", "patience", "interrupted"

    @property
    def got_worse(self) -> bool:
        """Whether the validation loss was lower before than at the end."""
        return (
            self.best_val_loss is not None
            and self.final_val_loss is not None
            and self.best_val_loss < self.final_val_loss
        )


Event = Started | Step | Evaluated | Sampled | Saved | Finished
