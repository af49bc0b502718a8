"""What a training run tells about itself as it goes: `train()` yields these, and its consumers show or store them."""

from dataclasses import dataclass
from pathlib import Path

SMOOTHED = 20
"""Steps whose losses the smoothed loss is a mean of."""


@dataclass(frozen=True)
class Started:
    """The run is about to take its first step, or the one behind `step` if it was resumed."""

    step: int  # optimizer steps done before, 0 unless resumed
    total_steps: int
    epochs: int
    train_examples: int
    val_examples: int
    trainable_parameters: int
    parameters: int


@dataclass(frozen=True)
class Step:
    """One optimizer step is done."""

    step: int  # counted from 1
    epoch: float  # epochs done, as a fraction
    loss: float  # mean over the step's targets, the tokens that count, in nats
    smoothed_loss: float  # the same over the targets of the last SMOOTHED steps
    lr: float
    grad_norm: float  # before clipping
    tokens: int  # the records' own tokens in this step, over all processes
    targets: int  # those of them that count
    tok_s: float


@dataclass(frozen=True)
class Evaluated:
    """The validation split was read."""

    step: int
    tokens_seen: int  # training tokens so far
    val_loss: float  # mean over the split's targets, in nats
    best: bool


@dataclass(frozen=True)
class Sampled:
    """The model answered the fixed prompts: pairs of instruction and answer."""

    step: int
    answers: list[tuple[str, str]]


@dataclass(frozen=True)
class Saved:
    """A checkpoint is on disk."""

    step: int
    path: Path


@dataclass(frozen=True)
class Note:
    """Something worth telling that is no number."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The run is over: done, stopped early, or interrupted. The fields of `summary.json`."""

    steps: int
    tokens_seen: int
    train_seconds: float
    train_tok_s: float
    peak_rss_mb: float
    final_train_loss: float | None  # smoothed
    final_val_loss: float | None  # of the last evaluation
    final_val_step: int | None  # which was after this step
    best_val_loss: float | None
    best_val_step: int | None  # 0 if nothing was better than the model before training
    reason: str  # "done", "patience", "interrupted"

    @property
    def got_worse(self) -> bool:
        """Whether the validation loss had been lower than at the end."""
        return (
            self.best_val_loss is not None
            and self.final_val_loss is not None
            and self.best_val_loss < self.final_val_loss
        )


Event = Started | Step | Evaluated | Sampled | Saved | Note | Finished
