"""The forward pass of training. It computes what `GPT.hidden` does, at targets only, with less memory."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gpt2cli.data.batches import Batch
from gpt2cli.model.gpt import GPT, Block
from gpt2cli.model.packed_row import PackedRow

LastBlock = Callable[[Block, Tensor, PackedRow, Tensor], Tensor]


def hidden_at_targets(
    model: GPT, row: Batch, embed: Callable[[Tensor, Tensor], Tensor], last_block: LastBlock, recompute: bool
) -> Tensor:
    """The final hidden states (N, C) at the places of the row whose next tokens are targets.

    `embed` takes token ids and the embedding matrix: `F.embedding` or `TiedGradient.embed`. `last_block` is `block_at`
    or its compiled form. With `recompute`, the backward pass computes each block again, so that only its input is kept
    in memory ("Training Deep Nets with Sublinear Memory Cost", Chen et al. 2016).
    """

    def run(block: Callable[..., Tensor], *arguments: Any) -> Any:
        return checkpoint(block, *arguments, use_reentrant=False) if recompute else block(*arguments)

    x = embed(row.idx, model.wte.weight) + model.wpe(row.sight.positions(row.idx, model.config.block_size))
    x = model.drop(x.to(model.ln_f.weight.dtype))  # with a half copy, the embeddings alone are in fp32
    blocks = list(model.h)
    at_all = len(row.places) == row.idx.shape[1]
    for block in blocks if at_all else blocks[:-1]:
        x = run(block, x, row.sight)
    if not at_all:
        x = run(last_block, blocks[-1], x, row.sight, row.places)
    final: Tensor = model.ln_f(x)[0]
    return final


def block_at(block: Block, x: Tensor, sight: PackedRow, places: Tensor) -> Tensor:
    """`block(x, sight)[:, places]`, without the MLP at other places: the last block's are not needed."""
    x = (x + block.attn(block.ln_1(x), sight))[:, places]
    x = x + block.mlp(block.ln_2(x))
    return x


@cache
def compiled_block_at() -> LastBlock:
    """`block_at`, compiled once for all models."""
    return torch.compile(block_at, dynamic=True)


class TiedGradient:
    """Collects the gradient of a matrix that is both head and embedding in one tensor; autograd would add up two.

    This saves 154 MB with GPT-2's vocabulary. The backward pass computes the head's part first. It stays here until the
    embedding adds its own part.
    """

    def __init__(self) -> None:
        self.of_head: Tensor | None = None

    def embed(self, idx: Tensor, weight: Tensor) -> Tensor:
        """As `F.embedding`."""
        rows: Tensor = _TiedEmbedding.apply(idx, weight, self)  # type: ignore[no-untyped-call]
        return rows


class _TiedEmbedding(torch.autograd.Function):
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


def compile_blocks(model: GPT, changing: bool) -> None:
    """Compile each block: all of it on CUDA, only the MLP (two thirds of the work) on other devices.

    On those, packed rows give the attention other shapes at every step. All blocks share one compilation.
    `changing` says whether rows have many different lengths: instructions have, blocks of text have not.
    """
    for block in model.h:
        if model.wte.weight.device.type == "cuda":
            block.compile(dynamic=True if changing else None)
        else:
            block.mlp.compile(dynamic=True)  # type: ignore[union-attr]
