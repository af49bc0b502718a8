"""Linear layers for mixed-precision training that keep no 16-bit copies of their weights.

Autocast casts every weight to 16 bits in the forward pass and keeps the copies until the backward pass: a quarter of a
gigabyte for 124M parameters. To cast them again takes 1% of a step's time.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2cli.model.gpt import GPT


class Bf16Linear(nn.Linear):
    """A linear layer that computes in `dtype` under autocast; it shares its parameters with `linear`."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.dtype = dtype
        self.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        y: Tensor = _Linear.apply(x.to(self.dtype), self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y


def make_lean(model: GPT, dtype: torch.dtype) -> None:
    """Replace the plain linear layers of the blocks by Bf16Linear layers."""
    for name, module in list(model.h.named_modules()):
        if type(module) is nn.Linear:
            model.h.set_submodule(name, Bf16Linear(module, dtype))


class _Linear(torch.autograd.Function):
    """x W^T + b, (B, T, out), computed in the type of x, (B, T, in)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        rows, x_rows = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        d_x = (rows @ weight.to(x.dtype)).view_as(x)
        d_weight = (rows.t() @ x_rows).to(weight.dtype)
        return d_x, d_weight, rows.sum(0, dtype=weight.dtype)
