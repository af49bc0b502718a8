"""A forward pass that keeps what each part adds to the residual stream, and that can replace it.

The residual stream (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits") is the sum of the
embeddings and of all that attention and MLPs have added. Shapes: B rows of T tokens, C channels, H heads of size D.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from gpt2cli.insight.watched import Watched
from gpt2cli.model.gpt import CAUSAL, GPT, Causal


class Site(StrEnum):
    """A place in a block where a pass can be changed."""

    STREAM = "stream"  # the residual stream before the block, (B, T, C)
    HEADS = "heads"  # the heads' outputs before the output matrix, (B, H, T, D)
    ATTENTION = "attn"  # what attention adds to the stream, (B, T, C)
    MLP = "mlp"  # what the MLP adds to the stream, (B, T, C)


Edits = Mapping[tuple[int, Site], Callable[[Tensor], Tensor]]
"""For layers and sites, the function that takes the tensor there and returns what replaces it."""
NO_EDITS: Edits = {}


@dataclass(frozen=True)
class Trace:
    """What a pass computed. The lists have an entry for each layer.

    embedding, position  (B, T, C) and (T, C): what the stream begins with
    weights, mixes       see `Watched`; `weights` is empty if they were not asked for
    attention, mlp       (B, T, C): what each attention and each MLP adds to the stream
    final                (B, T, C): the stream after the last block, before the last norm
    """

    embedding: Tensor
    position: Tensor
    weights: list[Tensor]
    mixes: list[Tensor]
    attention: list[Tensor]
    mlp: list[Tensor]
    final: Tensor

    def streams(self) -> list[Tensor]:
        """The residual stream (B, T, C) at 2 L + 1 places: at first, then after each attention and each MLP."""
        stream = self.embedding + self.position
        found = [stream]
        for attention, mlp in zip(self.attention, self.mlp, strict=True):
            found += [stream + attention, stream + attention + mlp]
            stream = found[-1]
        return found


def embed(model: GPT, idx: Tensor) -> tuple[Tensor, Tensor]:
    """The token embeddings (B, T, C) and the position embeddings (T, C) of ids (B, T). UsageError if T > window."""
    return model.wte(idx), model.wpe(CAUSAL.positions(idx, model.config.block_size))


@torch.no_grad()
def trace(model: GPT, idx: Tensor, edits: Edits = NO_EDITS, *, weights: bool = False) -> Trace:
    """Run the model over ids (B, T), and keep what its parts add; with `weights`, the attention probabilities too.

    Raises UsageError if T exceeds the window.
    """
    embedding, position = embed(model, idx)
    sight = Watched(lambda layer, mix: _edited(edits, layer, Site.HEADS, mix), keep_weights=weights)
    attention: list[Tensor] = []
    mlp: list[Tensor] = []
    final = run_blocks(model, embedding + position, edits, sight=sight, keep=(attention, mlp))
    return Trace(embedding, position, sight.weights, sight.mixes, attention, mlp, final)


def run_blocks(
    model: GPT,
    x: Tensor,
    edits: Edits = NO_EDITS,
    *,
    first: int = 0,
    sight: Causal | None = None,
    keep: tuple[list[Tensor], list[Tensor]] | None = None,
) -> Tensor:
    """The stream (B, T, C) after the last block, from the stream `x` before block number `first`. Differentiable.

    sight  by default, one that keeps nothing and applies the edits of heads
    keep   lists that get what each attention and each MLP adds
    """
    if sight is None:
        sight = _EditedHeads(edits) if any(site is Site.HEADS for _, site in edits) else CAUSAL
    for layer in range(first, model.config.n_layer):
        block = model.h[layer]
        x = _edited(edits, layer, Site.STREAM, x)
        attention = _edited(edits, layer, Site.ATTENTION, block.attn(block.ln_1(x), sight))  # type: ignore[operator]
        x = x + attention
        mlp = _edited(edits, layer, Site.MLP, block.mlp(block.ln_2(x)))  # type: ignore[operator]
        x = x + mlp
        if keep is not None:
            keep[0].append(attention)
            keep[1].append(mlp)
    return x


def logits(model: GPT, stream: Tensor) -> Tensor:
    """The logits (..., V) that the last norm and the head make of a residual stream (..., C)."""
    found: Tensor = model.head(model.ln_f(stream))
    return found


class _EditedHeads(Causal):
    def __init__(self, edits: Edits) -> None:
        self._edits = edits

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        return _edited(self._edits, layer, Site.HEADS, super().attend(layer, q, k, v, dropout))


def _edited(edits: Edits, layer: int, site: Site, value: Tensor) -> Tensor:
    edit = edits.get((layer, site))
    return value if edit is None else edit(value)
