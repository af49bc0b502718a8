"""The training loss: the cross-entropy of the targets, without all their logits in memory at once."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2cli.data.batches import Batch
from gpt2cli.model.device import LOGIT_ROWS
from gpt2cli.model.gpt import GPT
from gpt2cli.training.forward import TiedGradient, block_at, compiled_block_at, hidden_at_targets
from gpt2cli.training.sampled_softmax import sampled_cross_entropy

LOGIT_MULTIPLE = 128
"""On CUDA, the number of logits per token is padded to a multiple of this."""
HEAD_ROWS = 8192
"""Rows of the head that are cast to 16 bits at once, except on CUDA: other devices have less memory to spare."""


class SequenceLoss(nn.Module):
    """The summed loss of the sequences in a row. It is a module because DistributedDataParallel wraps modules."""

    def __init__(self, model: GPT, compiled: bool = False, recompute: bool = False) -> None:
        super().__init__()
        self.model, self.recompute = model, recompute
        self.softmax = compiled_softmax_gradient() if compiled else softmax_gradient
        self.last_block = compiled_block_at() if compiled else block_at

    def forward(self, row: Batch, negatives: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """The sum of the targets' losses in nats. With `negatives`, only these tokens compete with the targets."""
        model = self.model
        tied = TiedGradient() if model.lm_head is None and negatives is None else None
        embed = tied.embed if tied else F.embedding
        hidden = hidden_at_targets(model, row, embed, self.last_block, self.recompute)
        head = model.wte.weight if model.lm_head is None else model.lm_head.weight
        if negatives is not None:
            return sampled_cross_entropy(hidden, head, row.targets, negatives)
        return summed_cross_entropy(hidden, head, row.targets, tied, self.softmax)


SoftmaxGradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def softmax_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The summed cross-entropy, in fp32, of logits (n, V) and targets (n,), and its gradient, (n, V)."""
    log_p = logits.log_softmax(dim=-1, dtype=torch.float32)
    loss = -log_p.gather(1, targets[:, None]).sum()
    gradient = log_p.exp_()
    gradient[torch.arange(len(targets), device=targets.device), targets] -= 1
    return loss, gradient.to(logits.dtype)


@cache
def compiled_softmax_gradient() -> SoftmaxGradient:
    """`softmax_gradient` compiled into few kernels, once for all models."""
    return torch.compile(fusible_softmax_gradient, dynamic=True)


def fusible_softmax_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """`softmax_gradient` without in-place operations, each of which would need a separate kernel."""
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
    """The sum of -log softmax(hidden head^T)[target], for hidden (N, C), head (V, C) and targets (N,).

    The forward pass computes the gradients too, LOGIT_ROWS tokens at a time. So few logits exist at once, and none is
    computed twice (the idea of Liger Kernel's fused linear cross-entropy). `tied`, if given, gets the head's gradient.
    """
    if not torch.is_grad_enabled():  # an autograd.Function cannot tell
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
        portions = [(0, aligned(head, dtype))] if device == "cuda" else [*head_portions(head)]
        with torch.autocast(device, enabled=False):
            for start in range(0, len(targets), LOGIT_ROWS[device]):
                chosen = slice(start, start + LOGIT_ROWS[device])
                rows = hidden[chosen].to(dtype)
                logits = torch.cat([F.linear(rows, part.to(dtype)) for _, part in portions], dim=1)
                logits[:, len(head) :] = -torch.inf  # for the rows that `aligned` adds
                if not (wants_hidden or wants_head):
                    total += F.cross_entropy(logits.float(), targets[chosen], reduction="sum")
                    continue
                loss, d_logits = softmax(logits, targets[chosen])
                total += loss
                for begin, part in portions:
                    d_part = d_logits[:, begin : begin + len(part)]
                    if d_hidden is not None:
                        d_hidden[chosen] += d_part @ part.to(dtype)
                    if d_head is not None:
                        total_part = d_head[begin : begin + len(part)]
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
    """The head (V, C) in `dtype`, with rows of zeros appended: V becomes a multiple of LOGIT_MULTIPLE.

    Matrix products on a GPU take several times as long for other sizes, such as 50,257.
    """
    rows = torch.zeros(-(-len(head) // LOGIT_MULTIPLE) * LOGIT_MULTIPLE, head.shape[1], dtype=dtype, device=head.device)
    rows[: len(head)] = head
    return rows


def head_portions(head: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The head (V, C) in portions of HEAD_ROWS rows, each with the index of its first row."""
    return ((start, head[start : start + HEAD_ROWS]) for start in range(0, len(head), HEAD_ROWS))


def _add_product(total: Tensor, a: Tensor, b: Tensor, first: bool) -> None:
    """Add the matrix product of a and b to `total`; store it there if it is the first."""
    if a.dtype == total.dtype:
        total.addmm_(a, b, beta=0.0 if first else 1.0)  # without a copy
    elif first:
        total.copy_(a @ b)
    else:
        total += a @ b
