"""The training loss: cross-entropy of the tokens that count, without ever holding all their logits."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2cli.data.batches import Batch
from gpt2cli.model.device import LOGIT_ROWS
from gpt2cli.model.gpt import GPT
from gpt2cli.training.sampled_softmax import sampled_cross_entropy

LOGIT_MULTIPLE = 128
"""On CUDA, the length of a row of logits is a multiple of this."""
WORDS = 8192
"""Rows of the head that are cast to 16 bits at once, except on CUDA: memory is scarce elsewhere."""


class SequenceLoss(nn.Module):
    """The summed loss of a row of sequences, as a module, because DistributedDataParallel wraps modules."""

    def __init__(self, model: GPT, compiled: bool = False) -> None:
        super().__init__()
        self.model = model
        self.softmax = compiled_softmax_gradient() if compiled else softmax_gradient

    def forward(self, row: Batch, negatives: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Sum of the losses, in nats, of predicting the row's targets; against `negatives` alone, if they are given."""
        tied = TiedGradient() if self.model.lm_head is None and negatives is None else None
        lookup = tied.lookup if tied else None
        wanted = None if len(row.positions) == row.idx.shape[1] else row.positions  # None: all of them
        hidden = self.model.hidden(row.idx, packing=row.packing, wanted=wanted, lookup=lookup)[0]
        head = self.model.wte.weight if self.model.lm_head is None else self.model.lm_head.weight
        if negatives is not None:
            return sampled_cross_entropy(hidden, head, row.targets, negatives)
        return summed_cross_entropy(hidden, head, row.targets, tied, self.softmax)


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


SoftmaxGradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def softmax_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The summed cross-entropy, in fp32, of logits (n, V) with `targets` (n,), and its gradient by the logits."""
    log_p = logits.log_softmax(dim=-1, dtype=torch.float32)
    loss = -log_p.gather(1, targets[:, None]).sum()
    gradient = log_p.exp_()
    gradient[torch.arange(len(targets), device=targets.device), targets] -= 1
    return loss, gradient.to(logits.dtype)


@cache
def compiled_softmax_gradient() -> SoftmaxGradient:
    """`softmax_gradient` in few passes over the logits, compiled once for all models."""
    return torch.compile(fusible_softmax_gradient, dynamic=True)


def fusible_softmax_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """`softmax_gradient` without changes in place, each of which would end a kernel."""
    wide = logits.float()
    log_z = wide.logsumexp(dim=-1, keepdim=True)
    hit = torch.arange(logits.shape[1], device=logits.device) == targets[:, None]
    loss = (log_z - wide.gather(1, targets[:, None])).sum()
    return loss, ((wide - log_z).exp() - hit.float()).to(logits.dtype)


def summed_cross_entropy(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    tied: TiedGradient | None = None,
    softmax: SoftmaxGradient = softmax_gradient,
) -> Tensor:
    """Sum of -log softmax(hidden head^T)[target], for hidden (N, C), head (V, C) and targets (N,).

    The gradients are worked out in the forward pass, a few rows at a time, so that no more than LOGIT_ROWS rows of
    logits exist at once, and none of them is computed twice (the idea of Liger Kernel's fused linear cross-entropy).
    The head's gradient goes to `tied`, if there is one.
    """
    if not torch.is_grad_enabled():  # the function below cannot see that
        hidden, head = hidden.detach(), head.detach()
    loss: Tensor = _SummedCrossEntropy.apply(hidden, head, targets, tied, softmax)  # type: ignore[no-untyped-call]
    return loss


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, tied: TiedGradient | None, softmax: SoftmaxGradient
    ) -> Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        wants_hidden, wants_head = ctx.needs_input_grad[:2]
        total = torch.zeros((), device=hidden.device)
        d_hidden = torch.zeros_like(hidden) if wants_hidden else None
        d_head = torch.empty_like(head) if wants_head else None
        portions = [(0, aligned(head, dtype))] if device == "cuda" else [*enumerate_words(head)]
        with torch.autocast(device, enabled=False):
            for start in range(0, len(targets), LOGIT_ROWS[device]):
                chosen = slice(start, start + LOGIT_ROWS[device])
                rows = hidden[chosen].to(dtype)
                logits = torch.cat([F.linear(rows, part.to(dtype)) for _, part in portions], dim=1)
                logits[:, len(head) :] = -torch.inf  # where rows were added
                if not (wants_hidden or wants_head):
                    total += F.cross_entropy(logits.float(), targets[chosen], reduction="sum")
                    continue
                loss, d_logits = softmax(logits, targets[chosen])
                total += loss
                for word, part in portions:
                    d_part = d_logits[:, word : word + len(part)]
                    if d_hidden is not None:
                        d_hidden[chosen] += d_part @ part.to(dtype)
                    if d_head is not None:
                        total_part = d_head[word : word + len(part)]
                        _add_product(total_part, d_part[:, : len(total_part)].t(), rows, first=start == 0)
        ctx.gradients, ctx.tied = (d_hidden, d_head), tied
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        d_hidden, d_head = ctx.gradients
        ctx.gradients = None
        for gradient in (d_hidden, d_head):
            if gradient is not None:
                gradient.mul_(grad)
        if ctx.tied:
            ctx.tied.of_head, d_head = d_head, None
        return d_hidden, d_head, None, None, None


def aligned(head: Tensor, dtype: torch.dtype) -> Tensor:
    """The head (V, C) in `dtype` with rows of zeros behind it, so that a row of logits fills whole lines of memory.

    Otherwise, as with 50,257 tokens, matrix products on a GPU take several times as long.
    """
    rows = torch.zeros(-(-len(head) // LOGIT_MULTIPLE) * LOGIT_MULTIPLE, head.shape[1], dtype=dtype, device=head.device)
    rows[: len(head)] = head
    return rows


def enumerate_words(head: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The head (V, C) in portions of WORDS rows, each with the number of its first row."""
    return ((start, head[start : start + WORDS]) for start in range(0, len(head), WORDS))


def _add_product(total: Tensor, a: Tensor, b: Tensor, first: bool) -> None:
    """Add the matrix product of a and b to `total`, whose values count as zeros if it is the first."""
    if a.dtype == total.dtype:
        total.addmm_(a, b, beta=0.0 if first else 1.0)  # without a copy
    elif first:
        total.copy_(a @ b)
    else:
        total += a @ b
