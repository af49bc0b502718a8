"""The error of weights in fewer bits, which is measured before a file is written."""

import math
from dataclasses import dataclass

import numpy as np

from gpt2cli.checkpoints.mapped_files import Array
from gpt2cli.errors import CheckpointError

LARGEST_ERROR = {"f16": 0.02, "bf16": 0.02, "q8_0": 0.1, "int8": 0.25, "int4": 0.4}
"""The largest error of a tensor that is accepted as rounding, for each type: its root mean square, divided by the
tensor's. The errors of ordinary weights are 0.0002, 0.002, 0.006, 0.007 and 0.08."""
CHUNK = 2**20
"""Weights that are compared at a time, so that a large matrix is never copied whole to fp64."""


@dataclass(frozen=True)
class Rounding:
    """Sums over one or more tensors: of the squared differences, and of the squares of the exact weights."""

    squared_error: float = 0.0
    squares: float = 0.0

    @property
    def relative(self) -> float:
        """The root mean square of the differences, divided by that of the weights. 0 if all weights are 0."""
        return math.sqrt(self.squared_error / self.squares) if self.squares else 0.0

    def __add__(self, other: "Rounding") -> "Rounding":
        return Rounding(self.squared_error + other.squared_error, self.squares + other.squares)


def check_rounding(name: str, exact: Array, rounded: Array, stored: str, cut: bool = False) -> Rounding:
    """Compare a tensor with its counterpart after a cast to `stored`, a key of LARGEST_ERROR.

    `cut` is whether a value or a scale was cut to the largest one of the type. Raises CheckpointError, naming the
    tensor, if it was, for values that are no longer finite, and for an error above LARGEST_ERROR. A tensor whose values
    are all too small for the type has such an error.
    """
    found = compare(exact, rounded)
    if cut or not math.isfinite(found.squared_error):
        largest = float(np.abs(exact).max())
        why = f"has values up to {largest:.3g}, which {stored} cannot hold"
    elif found.relative > LARGEST_ERROR[stored]:
        why = f"would change by {found.relative:.0%} in {stored}, which is more than rounding"
    else:
        return found
    raise CheckpointError(f"{name} {why}: nothing was written; keep this model in f32 or in more bits")


def compare(exact: Array, rounded: Array) -> Rounding:
    """The sums over two tensors of one shape, in fp64."""
    total = Rounding()
    step = max(1, CHUNK // math.prod(exact.shape[1:]))
    for start in range(0, len(exact), step):
        part, other = (array[start : start + step].astype(np.float64) for array in (exact, rounded))
        errors = other - part
        total += Rounding(float(np.vdot(errors, errors)), float(np.vdot(part, part)))
    return total
