"""LoRA saved beside the layers that it adapts, as the original project and LLMs-from-scratch save it.

    NAME.linear.weight (out, in), NAME.linear.bias
    NAME.lora.A (in, r), NAME.lora.B (r, out)         W x becomes W x + alpha x A B

The tensors hold neither alpha nor whether it is divided by the rank. Both projects' notebooks use 16, undivided.
"""

from collections.abc import Callable

import numpy as np

from gpt2cli.checkpoints.lazy_arrays import LazyArray, derived
from gpt2cli.checkpoints.mapped_files import Array
from gpt2cli.checkpoints.tensor_checks import WEIGHT_TYPES
from gpt2cli.errors import CheckpointError
from gpt2cli.model.quantization import Floats, floats
from gpt2cli.untrusted import shown

ALPHA = 16.0
"""The factor of an update where no config gives another."""
_A, _B, _LINEAR = ".lora.A", ".lora.B", ".linear."


def merge_lora_layers(
    tensors: dict[str, LazyArray], alpha: float | None, note: Callable[[str], None]
) -> dict[str, LazyArray]:
    """The tensors with every update merged into its layer, computed in fp32 when it is read.

    `alpha` is None if no config gives it; `note` is called with the one that was used. Raises CheckpointError, naming
    the tensor, for matrices that do not fit, and for LoRA in PEFT's names, whose alpha is unknown.
    """
    for name in tensors:
        if ".lora_A." in name or ".base_layer." in name:
            raise CheckpointError(
                f"it holds PEFT's adapter beside its layers ({shown(name)}): save the adapter with save_pretrained() "
                "and give its directory as --ckpt, or merge it with merge_and_unload() first"
            )
    layers = [name.removesuffix(_A) for name in tensors if name.endswith(_A)]
    if not layers:
        return tensors
    merged, factor = dict(tensors), ALPHA if alpha is None else alpha
    for layer in layers:
        weight, A, B = (merged.pop(layer + part, None) for part in (".linear.weight", _A, _B))
        if weight is None or A is None or B is None:
            raise CheckpointError(f"{shown(layer)} has LoRA that is not whole: save the model again")
        if any(part.dtype not in WEIGHT_TYPES for part in (weight, A, B)):
            raise CheckpointError(f"{shown(layer)} has LoRA that is not floating point: save the model again")
        if A.ndim != 2 or B.ndim != 2 or A.shape[1] != B.shape[0] or (B.shape[1], A.shape[0]) != weight.shape:
            raise CheckpointError(f"{shown(layer)} has LoRA of another shape than its weight: save the model again")
        merged[f"{layer}.weight"] = with_update(weight, A.transposed(), B.transposed(), factor)
    for name in [name for name in merged if _LINEAR in name]:
        layer, _, leaf = name.rpartition(_LINEAR)
        if layer in layers:
            merged[f"{layer}.{leaf}"] = merged.pop(name)
    rank = max(tensors[layer + _A].shape[1] for layer in layers)
    source = "from its config"
    if alpha is None:
        source = "the default; to change it, put a config.json with n_embd and lora_alpha beside the file"
    note(
        f"merged LoRA of rank {rank} into {len(layers)} layers with alpha {factor:g}, not divided by the rank, {source}"
    )
    return merged


def with_update(weight: LazyArray, A: LazyArray, B: LazyArray, scale: float) -> LazyArray:
    """W + scale * B A in fp32, from W (out, in), A (r, in) and B (out, r)."""

    def add(weight: Array, A: Array, B: Array) -> Floats:
        update: Floats = (floats(B) * np.float32(scale)) @ floats(A)
        update += floats(weight)
        return update

    return derived(add, weight.shape, np.dtype(np.float32), weight, A, B)
