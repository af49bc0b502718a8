"""Attention that keeps its probabilities and the output of each head."""

from collections.abc import Callable

import torch
from torch import Tensor

from gpt2cli.model.gpt import Causal

EditHeads = Callable[[int, Tensor], Tensor]
"""A function that takes a layer's number and the heads' outputs (B, H, T, D), and returns what replaces them."""


class Watched(Causal):
    """A sight that keeps what each layer's attention computes in one pass.

    weights  for each layer the attention probabilities (B, H, T, T), if they are kept: row i says what token i reads
    mixes    for each layer the heads' outputs (B, H, T, D), before the output matrix
    """

    def __init__(self, edit: EditHeads | None = None, keep_weights: bool = True) -> None:
        self.weights: list[Tensor] = []
        self.mixes: list[Tensor] = []
        self._edit, self._keep_weights = edit, keep_weights

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """As `Causal.attend`, in explicit steps. Raises ValueError for dropout: the model must be in eval mode."""
        if dropout:
            raise ValueError("a model in training mode cannot be watched")
        T = q.shape[2]
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        future = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)
        weights = scores.masked_fill(future, -torch.inf).softmax(dim=-1)
        mix = weights @ v
        if self._edit is not None:
            mix = self._edit(layer, mix)
        if self._keep_weights:
            self.weights.append(weights)
        self.mixes.append(mix)
        return mix
