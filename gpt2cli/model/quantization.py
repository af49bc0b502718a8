"""Weights in 8 and in 4 bits: whole numbers, and what to multiply them by. No data is needed to find them."""

import math

import torch
from torch import Tensor

GROUP = 32
"""Weights of a row that share a scale in 4 bits."""
CHUNK = 2**17
"""Weights that are rounded at a time, so that all that is made of them on the way stays in the processor's cache."""
_SHRINKINGS = (1.0, 0.92, 0.84)  # six take twice as long, and make an error of 8.2% instead of 8.3
_LEAST = torch.finfo(torch.float32).tiny


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (out, in) in int8, and a scale (out,) fp32 for each row, whose largest weight becomes 127 or -127."""
    numbers = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scale = torch.empty(len(weight), device=weight.device)
    rows = max(1, CHUNK // weight.shape[1])
    for start in range(0, len(weight), rows):
        part = weight[start : start + rows].float()
        scale[start : start + rows] = each = (part.abs().amax(dim=1) / 127).clamp_(min=_LEAST)
        numbers[start : start + rows] = part.div(each[:, None]).round_()
    return numbers, scale


def group_size(width: int) -> int:
    """How many weights of a row of `width` share a scale in 4 bits: GROUP, or less where that does not divide it."""
    return math.gcd(GROUP, width)


def quantize_groups(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (out, in) in whole numbers from -8 to 7, int8, and a scale (out, in / group) for each group, fp16.

    A group's extreme weight becomes -8, of which there is no positive counterpart (ggml's q4_0), or somewhat beyond
    it and is cut, if that makes the sum of the squared errors smaller. The scale is the one that makes it smallest
    for the numbers found. What has been rounded so stays as it is when it is rounded again.
    """
    group = group_size(weight.shape[1])
    groups = weight.reshape(-1, group)
    numbers = torch.empty(groups.shape, dtype=torch.int8)
    scale = torch.empty(len(groups), dtype=torch.float16)
    for start in range(0, len(groups), CHUNK // group):
        part = slice(start, start + CHUNK // group)
        numbers[part], scale[part] = _round_groups(groups[part].float())
    return numbers.view(weight.shape), scale.view(len(weight), -1)


def _round_groups(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers (n, group), in fp32, and scales (n,) for these groups.

    For numbers q, the scale w.q / q.q leaves the squared error w.w - (w.q)^2 / q.q: the larger that, the better.
    """
    extreme = groups.gather(1, groups.abs().argmax(dim=1, keepdim=True))
    inverse = torch.where(extreme.abs() < _LEAST, 0, -8 / extreme)
    best, numbers, scale = torch.full_like(extreme, -1), torch.zeros_like(groups), torch.zeros_like(extreme)
    for shrinking in _SHRINKINGS:
        rounded = (groups * (inverse / shrinking)).round_().clamp_(-8, 7)
        product = (groups * rounded).sum(dim=1, keepdim=True)
        fitted = product / rounded.square().sum(dim=1, keepdim=True).clamp_(min=1)
        gain = product * fitted
        better = gain > best
        best = torch.where(better, gain, best)
        scale = torch.where(better, fitted, scale)
        numbers = torch.where(better, rounded, numbers)
    largest = torch.finfo(torch.float16).max
    return numbers, scale[:, 0].clamp(-largest, largest)


def is_cut(scale: Tensor) -> bool:
    """Whether a scale of `quantize_groups` is the largest that its type holds: it then stands for a larger one."""
    return bool((scale.abs() == torch.finfo(scale.dtype).max).any())


def dequantize_groups(numbers: Tensor, scale: Tensor) -> Tensor:
    """The matrix (out, in) that `quantize_groups` made these of, as near as they hold it, in fp32."""
    groups = numbers.view(*scale.shape, -1)
    return (groups * scale.float()[:, :, None]).view(numbers.shape)
