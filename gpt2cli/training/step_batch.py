"""The records of an optimizer step, and the rows that this process computes of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2cli.data.batches import Batch, make_rows, records_of_step
from gpt2cli.training.job import Job


@dataclass(frozen=True)
class StepBatch:
    """What one process computes in a step.

    records    those of all processes
    rows       those of this process, never empty
    counts     whether the rows count; a process without a record computes one that does not
    n_tokens   of all records
    n_targets  of all records, the tokens that count in the loss
    """

    records: list[int]
    rows: list[Batch]
    counts: bool
    n_tokens: int
    n_targets: int


def read_batch(job: Job, kinds: Tensor, step: int, device: torch.device) -> StepBatch:
    """The batch of a step, which counts from 0. `kinds` are those of `job.train`: see `batches.kinds_of`."""
    records = records_of_step(kinds, job.records_per_step, step, job.config.seed)
    lengths = job.train.lengths[records]
    n_targets = int((lengths - job.train.loss_from[records]).sum())
    mine = records[job.ranks.rank :: job.ranks.world_size]
    passes = [mine[i : i + job.config.batch_size] for i in range(0, len(mine), job.config.batch_size)]
    rows = [row for chosen in passes for row in make_rows(job.train, chosen, job.max_tokens, device)]
    counts = bool(rows)
    # all processes have to meet in the backward pass
    rows = rows or make_rows(job.train, records[:1], job.max_tokens, device)
    return StepBatch(records, rows, counts, int(lengths.sum()), n_targets)
