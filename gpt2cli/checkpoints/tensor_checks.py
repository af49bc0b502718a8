"""Checks of the tensors in a checkpoint file. They run before anything is computed with a tensor."""

import torch
from torch import Tensor

from gpt2cli.checkpoints.limits import MAX_DIMENSIONS, MAX_NAME, MAX_REPEATED, MAX_TENSORS
from gpt2cli.errors import CheckpointError
from gpt2cli.untrusted import shown_name

WEIGHT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The types of weights, and of the scales of quantized weights."""
_MASKS_AND_QUANTIZED = (torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.int64)


def check_model_tensors(tensors: dict[str, Tensor], where: object) -> None:
    """Raise CheckpointError, naming the tensor, unless each can be a weight, a mask, or a part of a quantized weight.

    All are then dense, in main memory, not empty, and of a type that torch compares and copies.
    """
    if len(tensors) > MAX_TENSORS:
        raise CheckpointError(f"{where} holds {len(tensors)} tensors, more than {MAX_TENSORS}: it is no GPT-2")
    for name, tensor in tensors.items():
        if len(name) > MAX_NAME:
            raise CheckpointError(f"{where} holds a tensor with a name of {len(name)} characters: it is no GPT-2")
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
            raise CheckpointError(
                f"{where}: {shown_name(name)} is no plain tensor (sparse, quantized or empty): save it as dense fp32"
            )
        if tensor.dtype not in WEIGHT_TYPES + _MASKS_AND_QUANTIZED:
            raise CheckpointError(f"{where}: {shown_name(name)} is {tensor.dtype}, not floating point: save it as fp32")
        if tensor.dim() > MAX_DIMENSIONS or tensor.numel() == 0:
            shape = tuple(tensor.shape[:MAX_DIMENSIONS])
            raise CheckpointError(
                f"{where}: {shown_name(name)} has the impossible shape {shape}: fetch or save it again"
            )


def check_bytes(tensors: dict[str, Tensor], size: int, where: object) -> None:
    """Raise CheckpointError if tensors that share memory are more than MAX_REPEATED times the file of `size` bytes.

    Some sharing is normal: an output head may be the token embedding under another name, and a training program may
    save a model both as a whole and as a part of another.
    """
    total = 0
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta:
            continue  # refused by `check_model_tensors`, if the model needs it
        total += tensor.nbytes
        if tensor.nbytes > tensor.untyped_storage().nbytes() or total > MAX_REPEATED * size:
            raise CheckpointError(
                f"{where}: {shown_name(name)} repeats numbers that are stored once, so that the tensors are larger "
                "than the file: save contiguous tensors"
            )
