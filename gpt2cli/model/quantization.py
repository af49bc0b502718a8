"""Weights in 8 or 4 bits: integers, and scales to multiply them by. Computed from the weights alone."""

import math

import torch
from torch import Tensor

from gpt2cli.errors import CheckpointError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The precisions that PyTorch has a type for."""
GROUP = 32
"""Neighbouring weights in a row that share a scale in 4 bits."""
CHUNK = 2**17
"""Weights that are rounded at a time, so that the intermediate results stay in the processor's cache."""
_SHRINKINGS = (1.0, 0.92, 0.84)  # six of them take twice as long and reduce the error from 8.3% to 8.2%
_LEAST = torch.finfo(torch.float32).tiny


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (out, in) in int8, and a scale for each row, (out,) fp32. A row's largest weight becomes 127 or -127."""
    numbers = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scale = torch.empty(len(weight), device=weight.device)
    rows = max(1, CHUNK // weight.shape[1])
    for start in range(0, len(weight), rows):
        part = weight[start : start + rows].float()
        scale[start : start + rows] = each = (part.abs().amax(dim=1) / 127).clamp_(min=_LEAST)
        numbers[start : start + rows] = part.div(each[:, None]).round_()
    return numbers, scale


def group_size(width: int) -> int:
    """How many weights share a scale in 4 bits, in rows of `width`: GROUP, or less if GROUP does not divide it."""
    return math.gcd(GROUP, width)


def quantize_groups(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (out, in) as integers from -8 to 7, int8, and a scale for each group, (out, in / group) fp16.

    A group's largest weight becomes -8, as in ggml's q4_0, because 8 cannot be stored. A smaller scale, with which it
    would be beyond -8 and is cut, is taken if the sum of squared errors is smaller. For the integers found, the scale
    is the one with the smallest error. To quantize the result again changes nothing.
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
    """Integers (n, group), in fp32, and scales (n,) for groups of weights w (n, group).

    For integers q, the best scale is w.q / q.q. Its squared error is w.w - (w.q)^2 / q.q, so the second term, the
    `gain`, is to be large.
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
    """Whether a scale of `quantize_groups` was too large for its type, and was replaced by the largest number in it."""
    return bool((scale.abs() == torch.finfo(scale.dtype).max).any())


def dequantize_groups(numbers: Tensor, scale: Tensor) -> Tensor:
    """The matrix (out, in), in fp32, that integers and scales of `quantize_groups` represent."""
    groups = numbers.view(*scale.shape, -1)
    return (groups * scale.float()[:, :, None]).view(numbers.shape)


def round_weights(weight: Tensor, precision: str) -> Tensor:
    """A block's matrix, in fp32, with the values that it has in `precision`.

    Rows that do not consist of whole groups are in 8 bits where others are in 4. Raises CheckpointError for weights
    that are too large for 4 bits.
    """
    if precision == "int4" and weight.shape[1] % GROUP == 0:
        numbers, scale = quantize_groups(weight.float())
        refuse_cut(is_cut(scale), weight, precision)
        return dequantize_groups(numbers, scale)
    if precision in ("int8", "int4"):
        numbers, scale = quantize_rows(weight.float())
        return numbers * scale[:, None]
    return weight.to(DTYPES[precision]).float()


def refuse_cut(cut: bool, weight: Tensor, precision: str) -> None:
    """Raise CheckpointError if weights were cut at the largest number of a precision, or became infinite in it."""
    if cut and bool(weight.isfinite().all()):
        largest = float(weight.detach().abs().max())
        raise CheckpointError(f"a weight of {largest:.3g} is too large for {precision}: use --precision fp32")
