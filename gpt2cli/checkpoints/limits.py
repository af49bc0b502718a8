"""Limits on a checkpoint file, so that reading it takes no more memory and time than a small multiple of its size.

The checks run before anything is computed with a tensor. The limits are far above the largest GPT-2, which has 48
blocks, 580 tensors, and 60 kB of header.
"""

from typing import Any

import torch
from torch import Tensor

from gpt2cli.errors import CheckpointError
from gpt2cli.untrusted import shown_name

MAX_HEADER = 4 * 2**20
"""Bytes of a header, or of a JSON file beside the weights, that are read. As Python objects they take 25 times that."""
MAX_TENSORS = 20_000
"""Tensors in a file: of the largest GPT-2 with the state of its optimizer, there are 2,400."""
MAX_BLOCKS = 500
"""Transformer blocks. Each costs a millisecond, however small it is."""
MAX_SHARDS = 1_000
"""Files that the weights of one model may be in."""
MAX_DIMENSIONS = 8
"""Dimensions of a tensor. The causal masks have four."""
MAX_NAME = 500
"""Characters of a tensor's name."""
MAX_REPEATED = 3
"""The size of all tensors, divided by that of their file, may be this at most: tensors can share memory."""
MAX_FACTS = 10_000
"""Values in a file besides its tensors: in its config, its template and its provenance."""

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


def plain_facts(value: Any, where: object) -> Any:
    """A copy of a file's facts, of numbers, texts, lists and dicts. Any other value becomes the name of its type.

    Halves of surrogate pairs, which no text file can hold, become question marks. Raises CheckpointError for more than
    MAX_FACTS values. A list that is in two places counts twice: such nesting can be exponentially large as a text.
    """
    left = MAX_FACTS

    def copied(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > 50:
            raise CheckpointError(
                f"{where}: its config, template or provenance is nested or large beyond reason: save it again"
            )
        if isinstance(value, str):
            return value.encode(errors="replace").decode()
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            members = ((name, member) for name, member in value.items() if isinstance(name, str))
            return {copied(name, depth): copied(member, depth + 1) for name, member in members}
        if isinstance(value, list | tuple):
            return [copied(member, depth + 1) for member in value]
        return f"a {type(value).__name__}"

    return copied(value, 0)
