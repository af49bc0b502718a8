"""How far weights in fewer bits are from the exact ones: measured before a file is written, not when it is read."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2cli.errors import CheckpointError

LARGEST_ERROR = {"f16": 0.02, "bf16": 0.02, "q8_0": 0.1, "int8": 0.25, "int4": 0.4}
"""By what weights are stored in, the largest error of a tensor that can be rounding: root mean square, as a share of
the tensor's. Ordinary weights change by 0.0002, 0.002, 0.006, 0.007 and 0.08 of it."""
CHUNK = 2**20
"""Weights that are compared at a time, so that no second copy of a large matrix is made in fp64."""


@dataclass(frozen=True)
class Rounding:
    """Sums over one tensor, or over several: the squared differences, and the squares of the exact weights."""

    squared_error: float = 0.0
    squares: float = 0.0

    @property
    def relative(self) -> float:
        """The root mean square of the differences, as a share of the weights'. 0 if all weights are 0."""
        return math.sqrt(self.squared_error / self.squares) if self.squares else 0.0

    def __add__(self, other: "Rounding") -> "Rounding":
        return Rounding(self.squared_error + other.squared_error, self.squares + other.squares)


def check_rounding(name: str, exact: Tensor, rounded: Tensor, stored: str, cut: bool = False) -> Rounding:
    """Compare a tensor with its counterpart after a cast to `stored`, a key of LARGEST_ERROR.

    `cut` says that a value or a scale was cut at the largest that the type holds. Raises CheckpointError, naming the
    tensor, for that, for values that are no longer finite, and for a tensor that changed by more than rounding does,
    such as one whose values are all too small for the type.
    """
    found = compare(exact, rounded)
    if cut or not math.isfinite(found.squared_error):
        largest = float(exact.abs().max())
        why = f"has values up to {largest:.3g}, which {stored} cannot hold"
    elif found.relative > LARGEST_ERROR[stored]:
        why = f"would change by {found.relative:.0%} in {stored}, which is more than rounding"
    else:
        return found
    raise CheckpointError(f"{name} {why}: nothing was written; keep this model in f32 or in more bits")


def compare(exact: Tensor, rounded: Tensor) -> Rounding:
    """The sums over two tensors of one shape, in fp64."""
    total = Rounding()
    chunks = (torch.split(tensor.detach().flatten(), CHUNK) for tensor in (exact, rounded))
    for chunk, other in zip(*chunks, strict=True):
        part = chunk.double()
        squares, errors = part.square().sum(), (other.double() - part).square().sum()
        total += Rounding(float(errors), float(squares))
    return total


def cast(tensors: dict[str, Tensor], stored: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors in another floating-point type. Raises CheckpointError as `check_rounding` does."""
    rounded = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    if dtype != torch.float32:
        for name, tensor in tensors.items():
            check_rounding(name, tensor, rounded[name], stored)
    return rounded


def is_finite(tensor: Tensor) -> bool:
    """Whether all values of a floating-point tensor are finite in fp32."""
    # one pass without a copy says yes for every sane tensor; a sum can overflow, so no is asked again, in fp32:
    # what only fp64 can hold is lost when the model is made ready
    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.float().isfinite().all())
