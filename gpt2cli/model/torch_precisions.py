"""The precisions of `quantization` for torch's tensors."""

import torch
from torch import Tensor

from gpt2cli.model import quantization

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The precisions that PyTorch has a type for."""


def round_weights(weight: Tensor, precision: str) -> Tensor:
    """As `quantization.round_weights`, for a tensor on the CPU. Its gradient is not kept."""
    return torch.from_numpy(quantization.round_weights(weight.detach().float().numpy(), precision))


def refuse_cut(cut: bool, weight: Tensor, precision: str) -> None:
    """As `quantization.refuse_cut`."""
    quantization.refuse_cut(cut, weight.detach().float().cpu().numpy(), precision)
