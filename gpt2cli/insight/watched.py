"""Attention whose probabilities can be read."""

from collections.abc import Callable

import torch
from torch import Tensor

from gpt2cli.model.gpt import Causal


class Watched(Causal):
    """A sight that gives each layer's attention probabilities to a function."""

    def __init__(self, see: Callable[[int, Tensor], None]) -> None:
        """`see` gets the layer's number and the probabilities (B, H, T, T). Row i is the distribution of token i."""
        self._see = see

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """As `Causal.attend`, in separate steps. Raises ValueError for dropout: the model must be in eval mode."""
        if dropout:
            raise ValueError("a model in training mode cannot be watched")
        T = q.shape[2]
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        future = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)
        weights = scores.masked_fill_(future, -torch.inf).softmax(dim=-1)
        self._see(layer, weights)
        mix: Tensor = weights @ v
        return mix
