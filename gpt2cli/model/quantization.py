"""Weights in 8 and in 4 bits: whole numbers, and what to multiply them by. No data is needed to find them."""

import math

import torch
from torch import Tensor

GROUP = 32
"""Weights of a row that share a scale in 4 bits."""
_SHRINKINGS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (out, in) in int8, and a scale (out,) for each row, whose largest weight becomes 127."""
    scale = weight.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale


def quantize_groups(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (out, in) in whole numbers from -8 to 7, int8, and a scale (out, in / group) for each group, fp16.

    A group's extreme weight becomes -8, of which there is no positive counterpart (ggml's q4_0), or somewhat beyond
    it and is cut, if that makes the sum of the squared errors smaller.
    """
    groups = weight.float().view(len(weight), -1, math.gcd(GROUP, weight.shape[1]))
    extreme = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))
    best = torch.full_like(extreme, float("inf"))
    numbers, scale = torch.empty_like(groups, dtype=torch.int8), torch.empty_like(extreme, dtype=torch.float16)
    for shrinking in _SHRINKINGS:
        candidate = (extreme * shrinking / -8).half()
        divisor = torch.where(candidate == 0, 1, candidate.float())
        rounded = (groups / divisor).round().clamp(-8, 7)
        error = (rounded * candidate.float() - groups).square().sum(dim=2, keepdim=True)
        better = error < best
        best = torch.where(better, error, best)
        scale = torch.where(better, candidate, scale)
        numbers = torch.where(better, rounded.to(torch.int8), numbers)
    return numbers.view_as(weight), scale[:, :, 0]


def dequantize_groups(numbers: Tensor, scale: Tensor) -> Tensor:
    """The matrix (out, in) that `quantize_groups` made these of, as near as they hold it, in fp32."""
    groups = numbers.view(*scale.shape, -1)
    return (groups * scale.float()[:, :, None]).view(numbers.shape)
