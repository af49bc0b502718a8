"""The parts of a training run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gpt2cli.config import TrainConfig
from gpt2cli.data.batches import steps_per_epoch
from gpt2cli.data.dataset import TokenDataset
from gpt2cli.model.gpt import GPT
from gpt2cli.training import state
from gpt2cli.training.distributed import Ranks


@dataclass
class Job:
    """Everything that a run is made of.

    autocast      the type to compute in, None for the weights' own
    max_tokens    the most tokens of one forward pass; a larger batch is split
    prompts       (what to show, what the model reads) of the samples
    identity      settings and data, which a resumed run must share
    compiled      whether to compile the blocks, and on CUDA what the loss computes for every logit
    recompute     whether the backward pass computes the blocks again, to save memory
    half_copy     whether to compute in a copy of the model in `autocast`'s type, in place of autocast
    checkpoints   where to save, None for nowhere
    should_stop   asked after every step: whether to save and leave
    """

    model: GPT
    train: TokenDataset
    val: TokenDataset | None
    config: TrainConfig
    ranks: Ranks = field(default_factory=Ranks)
    autocast: torch.dtype | None = None
    max_tokens: int = 1024
    prompts: list[tuple[str, str]] = field(default_factory=list)
    identity: dict[str, Any] = field(default_factory=dict)
    checkpoints: Path | None = None
    resume: state.Resumable | None = None
    should_stop: Callable[[], bool] = lambda: False
    compiled: bool = False
    recompute: bool = False
    half_copy: bool = False

    @property
    def records_per_step(self) -> int:
        return self.config.batch_size * self.config.grad_accum * self.ranks.world_size

    @property
    def total_steps(self) -> int:
        if self.config.max_steps is not None:
            return self.config.max_steps
        return self.config.epochs * steps_per_epoch(len(self.train), self.records_per_step)

    def every(self, steps: int | None) -> int:
        """The interval that a setting means: None is a tenth of the run."""
        return max(1, self.total_steps // 10) if steps is None else steps
