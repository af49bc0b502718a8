"""Tensors in another floating-point type."""

import torch
from torch import Tensor

from gpt2cli.checkpoints.rounding import check_rounding
from gpt2cli.checkpoints.torch_arrays import to_array

TORCH_TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def cast(tensors: dict[str, Tensor], stored: str) -> dict[str, Tensor]:
    """Tensors in a type of TORCH_TYPES. Raises CheckpointError as `check_rounding` does."""
    rounded = {name: tensor.to(TORCH_TYPES[stored]) for name, tensor in tensors.items()}
    if stored != "f32":
        for name, tensor in tensors.items():
            check_rounding(name, to_array(tensor), to_array(rounded[name]), stored)
    return rounded
