"""A forward pass that keeps what each part adds to the residual stream, and that can replace it.

The residual stream (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits") is the sum of the
embeddings and of all that attention and MLPs have added. Shapes: B rows of T tokens, C channels, H heads of size D.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor

from gpt2cli.config import VOCAB_SIZE
from gpt2cli.errors import DivergedError
from gpt2cli.model.gpt import CAUSAL, GPT, Causal


class Site(Enum):
    """A place in a block where a pass can be changed."""

    STREAM = "stream"  # the residual stream before the block, (B, T, C)
    HEADS = "heads"  # the heads' outputs before the output matrix, (B, H, T, D)
    ATTENTION = "attn"  # what attention adds to the stream, (B, T, C)
    MLP = "mlp"  # what the MLP adds to the stream, (B, T, C)


Edits = Mapping[tuple[int, Site], Callable[[Tensor], Tensor]]
"""For layers and sites, the function that takes the tensor there and returns what replaces it."""
NO_EDITS: Edits = {}
LOGIT_ROWS = 128
"""Streams whose logits are computed at once. For GPT-2's vocabulary, 128 take 26 MB."""


@dataclass(frozen=True)
class PartOutputs:
    """What the parts computed in a pass. Each list has an entry for each layer.

    mixes           (B, H, T, D): the heads' outputs, before the output matrix
    attention, mlp  (B, T, C): what the attention and the MLP add to the residual stream
    """

    mixes: list[Tensor] = field(default_factory=list)
    attention: list[Tensor] = field(default_factory=list)
    mlp: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Trace(PartOutputs):
    """A whole pass.

    embedding, position  (B, T, C) and (T, C): the stream begins with their sum
    final                (B, T, C): the stream after the last block, before the last norm
    """

    embedding: Tensor = field(kw_only=True)
    position: Tensor = field(kw_only=True)
    final: Tensor = field(kw_only=True)

    def streams(self, places: slice = slice(None)) -> list[Tensor]:
        """The residual stream (B, T, C) at some places: the embeddings, then after each attention and each MLP."""
        found = [self.embedding[:, places] + self.position[places]]
        for attention, mlp in zip(self.attention, self.mlp, strict=True):
            found.append(found[-1] + attention[:, places])
            found.append(found[-1] + mlp[:, places])
        return found

    def last_streams(self) -> Tensor:
        """The residual streams (2 L + 1, C) at the last place of the only row, in the order of `streams`."""
        return torch.cat(self.streams(slice(-1, None)))[:, 0]


def stream_places(n_layer: int) -> list[tuple[int | None, str]]:
    """What `Trace.streams` come after: (None, "embedding"), then (layer, "attn") and (layer, "mlp") of each layer."""
    return [(None, "embedding"), *((layer, part) for layer in range(n_layer) for part in ("attn", "mlp"))]


def embed(model: GPT, idx: Tensor) -> tuple[Tensor, Tensor]:
    """The token embeddings (B, T, C) and the position embeddings (T, C) of ids (B, T). UsageError if T > window."""
    return model.wte(idx), model.wpe(CAUSAL.positions(idx, model.config.block_size))


@torch.no_grad()
def trace(model: GPT, idx: Tensor, edits: Edits = NO_EDITS) -> Trace:
    """Run the model over ids (B, T), and keep what its parts add.

    Raises UsageError if T exceeds the window, and DivergedError if the result is not finite.
    """
    embedding, position = embed(model, idx)
    kept = PartOutputs()
    final = finite(run_blocks(model, embedding + position, edits, keep=kept))
    return Trace(kept.mixes, kept.attention, kept.mlp, embedding=embedding, position=position, final=final)


def run_blocks(
    model: GPT, x: Tensor, edits: Edits = NO_EDITS, *, first: int = 0, keep: PartOutputs | None = None
) -> Tensor:
    """The stream (B, T, C) after the last block, from the stream `x` before block number `first`. Differentiable.

    `keep` receives what the parts compute. Without edits, the result equals the model's to the bit.
    """
    sight = _Mixes(edits, keep)
    for layer in range(first, model.config.n_layer):
        block = model.h[layer]
        x = _edited(edits, layer, Site.STREAM, x)
        attention = _edited(edits, layer, Site.ATTENTION, block.attn(block.ln_1(x), sight))  # type: ignore[operator]
        x = x + attention
        mlp = _edited(edits, layer, Site.MLP, block.mlp(block.ln_2(x)))  # type: ignore[operator]
        x = x + mlp
        if keep is not None:
            keep.attention.append(attention)
            keep.mlp.append(mlp)
    return x


def logits(model: GPT, stream: Tensor) -> Tensor:
    """The logits (..., V) that the last norm and the head make of a residual stream (..., C).

    Rows that pad a checkpoint's table are no tokens: their logits are left out, as in sampling.
    """
    found: Tensor = model.head(model.ln_f(stream))[..., :VOCAB_SIZE]
    return found


def finite(computed: Tensor) -> Tensor:
    """The tensor itself. Raises DivergedError if one of its numbers is not finite."""
    if not bool(computed.isfinite().all()):
        raise DivergedError("the model computes numbers that are not finite: check the checkpoint")
    return computed


class _Mixes(Causal):
    """A sight that edits and keeps the outputs of heads."""

    def __init__(self, edits: Edits, keep: PartOutputs | None) -> None:
        self._edits, self._keep = edits, keep

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        mix = _edited(self._edits, layer, Site.HEADS, super().attend(layer, q, k, v, dropout))
        if self._keep is not None:
            self._keep.mixes.append(mix)
        return mix


def _edited(edits: Edits, layer: int, site: Site, value: Tensor) -> Tensor:
    edit = edits.get((layer, site))
    return value if edit is None else edit(value)
