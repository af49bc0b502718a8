"""Linear layers that keep less for the backward pass than autocast does.

Autocast casts every weight to 16 bits in the forward pass and keeps the copies until the backward pass: a quarter of a
gigabyte for 124M parameters. Casting them again takes a hundredth of a step's time.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2cli.model.gpt import GPT


def make_lean(model: GPT, dtype: torch.dtype) -> None:
    """Let the linear layers of the blocks, under autocast, compute in `dtype` without keeping weights in it."""
    for module in model.h.modules():
        if type(module) is nn.Linear:
            module.forward = partial(_forward, module, dtype)  # type: ignore[method-assign]


def _forward(layer: nn.Linear, dtype: torch.dtype, x: Tensor) -> Tensor:
    if not torch.is_autocast_enabled(x.device.type):
        return F.linear(x, layer.weight, layer.bias)
    y: Tensor = _Linear.apply(x.to(dtype), layer.weight, layer.bias)  # type: ignore[no-untyped-call]
    return y


class _Linear(torch.autograd.Function):
    """x W^T + b in the type of x, (B, T, in) to (B, T, out)."""

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
