"""Passes from one layer on, in each of which one value of that layer is replaced. Ablation and patching use them.

Shapes: T tokens, C channels, V = vocab_size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gpt2cli.insight.passes import Site, logits, run_blocks
from gpt2cli.model.gpt import GPT

TOKENS_AT_ONCE = 1024
"""The most tokens of a batch, if a prompt is not longer. It limits the memory: 12 MB for an MLP of the 124M model."""


@dataclass(frozen=True)
class Swap:
    """A value of a pass, and what replaces it.

    index  a head at Site.HEADS, otherwise a place; None: the whole tensor at that site
    value  of the shape of the replaced value, or one that broadcasts to it
    """

    site: Site
    index: int | None
    value: Tensor


@torch.no_grad()
def measure_swaps(
    model: GPT, stream: Tensor, layer: int, swaps: Sequence[Swap], measure: Callable[[Tensor], Tensor]
) -> list[float]:
    """A number for each swap in block number `layer`, whose input is `stream` (1, T, C).

    measure  the numbers (...) of logits (..., V) at the last place
    """
    rows = max(1, TOKENS_AT_ONCE // stream.shape[1])
    found: list[float] = []
    for start in range(0, len(swaps), rows):
        batch = swaps[start : start + rows]
        edits = {(layer, site): partial(_swapped, batch, site) for site in {swap.site for swap in batch}}
        final = run_blocks(model, stream.expand(len(batch), -1, -1), edits, first=layer)
        found += measure(logits(model, final[:, -1])).tolist()
    return found


def _swapped(batch: Sequence[Swap], site: Site, values: Tensor) -> Tensor:
    """The values at a site, where row i of the batch has the i-th swap."""
    values = values.clone()
    for row, swap in enumerate(batch):
        if swap.site is site:
            values[row, slice(None) if swap.index is None else swap.index] = swap.value
    return values
