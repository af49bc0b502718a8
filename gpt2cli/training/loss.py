"""The training loss: cross-entropy of the tokens that count, without ever holding all their logits."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2cli.data.batches import Row
from gpt2cli.model.gpt import GPT
from gpt2cli.training.sampled import sampled_cross_entropy

ROWS = 128
"""Target tokens whose logits are held at once: 26 MB in fp32 over GPT-2's vocabulary."""
WORDS = 8192
"""Rows of the head that are cast to 16 bits at once."""


class SequenceLoss(nn.Module):
    """The summed loss of a row of sequences, as a module, because DistributedDataParallel wraps modules."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, row: Row, negatives: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Sum of the losses, in nats, of predicting the row's targets; against `negatives` alone, if they are given."""
        tied = TiedGradient() if self.model.lm_head is None and negatives is None else None
        lookup = tied.lookup if tied else None
        hidden = self.model.hidden(row.idx, packing=row.packing, wanted=row.positions, lookup=lookup)[0]
        head = self.model.wte.weight if self.model.lm_head is None else self.model.lm_head.weight
        if negatives is not None:
            return sampled_cross_entropy(hidden, head, row.targets, negatives)
        return summed_cross_entropy(hidden, head, row.targets, tied)


class TiedGradient:
    """One gradient for a matrix that is both head and embedding, where autograd would make two and add them up.

    For GPT-2's vocabulary that is 154 MB less. The head's part comes first in the backward pass, and waits here until
    the lookup adds its own.
    """

    def __init__(self) -> None:
        self.of_head: Tensor | None = None

    def lookup(self, idx: Tensor, weight: Tensor) -> Tensor:
        """`F.embedding`."""
        rows: Tensor = _TiedLookup.apply(idx, weight, self)  # type: ignore[no-untyped-call]
        return rows


class _TiedLookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, idx: Tensor, weight: Tensor, tied: TiedGradient) -> Tensor:
        ctx.save_for_backward(idx, weight)
        ctx.tied = tied
        return F.embedding(idx, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        idx, weight = ctx.saved_tensors
        total = torch.zeros_like(weight) if ctx.tied.of_head is None else ctx.tied.of_head
        ctx.tied.of_head = None
        total.index_add_(0, idx.flatten(), grad.flatten(0, -2).to(total.dtype))
        return None, total, None


def summed_cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor, tied: TiedGradient | None = None) -> Tensor:
    """Sum of -log softmax(hidden head^T)[target], for hidden (N, C), head (V, C) and targets (N,).

    The gradients are worked out in the forward pass, a few rows at a time, so that no more than `ROWS` rows of logits
    exist at once, and none of them is computed twice (the idea of Liger Kernel's fused linear cross-entropy). The
    head's gradient goes to `tied`, if there is one.
    """
    if not torch.is_grad_enabled():  # the function below cannot see that
        hidden, head = hidden.detach(), head.detach()
    loss: Tensor = _SummedCrossEntropy.apply(hidden, head, targets, tied)  # type: ignore[no-untyped-call]
    return loss


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, tied: TiedGradient | None) -> Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.dtype
        wants_hidden, wants_head = ctx.needs_input_grad[:2]
        total = torch.zeros((), device=hidden.device)
        d_hidden = torch.zeros_like(hidden) if wants_hidden else None
        d_head = torch.empty_like(head) if wants_head else None
        with torch.autocast(device, enabled=False):
            for start in range(0, len(targets), ROWS):
                rows, target = hidden[start : start + ROWS].to(dtype), targets[start : start + ROWS, None]
                logits = torch.cat([F.linear(rows, part.to(dtype)).float() for part in torch.split(head, WORDS)], dim=1)
                log_p = logits.log_softmax(dim=-1)
                total -= log_p.gather(1, target).sum()
                if not (wants_hidden or wants_head):
                    continue
                d_logits = log_p.exp_().scatter_add_(1, target, torch.full_like(target, -1, dtype=log_p.dtype))
                for word in range(0, len(head), WORDS):
                    part = d_logits[:, word : word + WORDS].to(dtype)
                    if d_hidden is not None:
                        d_hidden[start : start + ROWS] += part @ head[word : word + WORDS].to(dtype)
                    if d_head is not None:
                        _add_product(d_head[word : word + WORDS], part.t(), rows, first=start == 0)
        ctx.gradients, ctx.tied = (d_hidden, d_head), tied
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        d_hidden, d_head = ctx.gradients
        ctx.gradients = None
        for gradient in (d_hidden, d_head):
            if gradient is not None:
                gradient.mul_(grad)
        if ctx.tied:
            ctx.tied.of_head, d_head = d_head, None
        return d_hidden, d_head, None, None


def _add_product(total: Tensor, a: Tensor, b: Tensor, first: bool) -> None:
    """Add the matrix product of a and b to `total`, whose values count as zeros if it is the first."""
    if a.dtype == total.dtype:
        total.addmm_(a, b, beta=0.0 if first else 1.0)  # without a copy
    elif first:
        total.copy_(a @ b)
    else:
        total += a @ b
