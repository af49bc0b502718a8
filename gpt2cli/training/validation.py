"""The validation loss of a run, and the records that it is measured on."""

from contextlib import AbstractContextManager
from typing import Any

import torch

from gpt2cli.data.batches import make_rows
from gpt2cli.data.dataset import TokenDataset
from gpt2cli.data.splits import spread
from gpt2cli.model.gpt import GPT
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.loss import SequenceLoss

SHARE = 0.02
"""The largest part of the time of a run for one evaluation."""
FORWARD = 1 / 3
"""The time of a forward pass, as a part of the time of a training step over the same tokens."""
FEWEST = 4
"""The smallest number of records. A run uses all of its held-out records if they are fewer."""


def subset(val: TokenDataset, train_tokens: int, used: int | None = None) -> TokenDataset:
    """The validation records of a run that evaluates by time: all, or some that are spread evenly over them.

    used  how many earlier processes of the run used: a longer run keeps them, so that its losses can be compared

    Without `used`, an evaluation takes about SHARE of the time of a run that has `train_tokens` tokens in all its
    steps. The same arguments always give the same records.
    """
    most = int(len(val) * SHARE * train_tokens / (FORWARD * max(1, val.n_tokens)))
    used = used or max(FEWEST, most)
    return val if used >= len(val) else val.select(spread(used, len(val)))


@torch.no_grad()
def mean_loss(
    model: GPT, data: TokenDataset, max_tokens: int, autocast: AbstractContextManager[Any], ranks: Ranks
) -> float:
    """The mean loss over all targets of `data`, in nats. Each process computes its share."""
    mine = list(range(len(data)))[ranks.rank :: ranks.world_size]
    losses, n = [], 0
    with autocast:
        for row in make_rows(data, mine, max_tokens, model.wte.weight.device):
            losses.append(SequenceLoss(model)(row))
            n += len(row.targets)
    total, count = ranks.sum(sum(torch.stack(losses).tolist()) if losses else 0.0, n)
    return total / count
