"""Mixed precision by a copy of the model in 16 bits (Micikevicius et al. 2017), which needs the fewest GPU kernels.

Autocast launches a kernel to cast each weight, each gradient and the output of each LayerNorm. With a small model,
Python then takes longer to launch the kernels of a step than the GPU takes to run them. Here one call casts all
weights, once per step. Unlike with autocast, the residual stream is in 16 bits too.
"""

import copy

import torch
from torch import Tensor, nn

from gpt2cli.model.gpt import GPT


class HalfCopy:
    """A copy of `model` that computes in `dtype`. `model` keeps its weights in fp32 and receives the gradients.

    The copy shares the embeddings and the head with the model: their gradients are sums over many tokens, for which
    16 bits are too few. It also shares frozen weights that are in `dtype` already.
    """

    def __init__(self, model: GPT, dtype: torch.dtype) -> None:
        shared = {model.wte.weight, model.wpe.weight, *([] if model.lm_head is None else model.lm_head.parameters())}
        memo: dict[int, object] = {}
        self.weights: list[Tensor] = []
        self.copies: list[Tensor] = []
        for parameter in model.parameters():
            if parameter in shared:
                memo[id(parameter)] = parameter
            elif not parameter.requires_grad:  # no copy if it is in 16 bits already
                memo[id(parameter)] = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
            else:
                twin = nn.Parameter(parameter.detach().to(dtype, copy=True))
                memo[id(parameter)] = twin
                self.weights.append(parameter)
                self.copies.append(twin)
        self.model: GPT = copy.deepcopy(model, memo)

    @torch.no_grad()
    def collect(self) -> None:
        """Add the copy's gradients to the model's, in fp32, and clear them."""
        moved = [(w, c) for w, c in zip(self.weights, self.copies, strict=True) if c.grad is not None]
        fresh = [torch.empty_like(weight) for weight, _ in moved]
        torch._foreach_copy_(fresh, [c.grad for _, c in moved if c.grad is not None])
        again = [(w, f) for (w, _), f in zip(moved, fresh, strict=True) if w.grad is not None]
        if again:
            torch._foreach_add_([w.grad for w, _ in again if w.grad is not None], [f for _, f in again])
        for (weight, twin), gradient in zip(moved, fresh, strict=True):
            twin.grad = None
            if weight.grad is None:
                weight.grad = gradient

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the model's current weights to the copy."""
        torch._foreach_copy_(self.copies, self.weights)
