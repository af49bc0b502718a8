"""The events of a training run: `train()` yields them, and its caller shows or stores them."""

from dataclasses import dataclass
from pathlib import Path

SMOOTHED = 20
"""The smoothed loss is the mean over this many steps."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """The run starts or, after `step` steps of earlier processes, resumes."""

    step: int  # optimizer steps taken before; 0 unless resumed
    total_steps: int
    epochs: int
    train_examples: int
    val_examples: int
    trainable_parameters: int
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimizer step was taken."""

    step: int  # counted from 1
    epoch: float  # epochs done, as a fraction
    loss: float  # mean over the step's targets (tokens that count in the loss), in nats
    smoothed_loss: float  # the same over the targets of the last SMOOTHED steps
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


@dataclass(frozen=True)
class Sampled:
    """The model answered the sample prompts: pairs of prompt and answer."""

    step: int
    answers: list[tuple[str, str]]


@dataclass(frozen=True)
class Saved:
    """A checkpoint was written."""

    step: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The run ended. These are the fields of `summary.json`."""

    steps: int
    tokens_seen: int
    train_seconds: float
    train_tok_s: float
    peak_rss_mb: float
    final_train_loss: float | None  # smoothed
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
