"""LoRA saved beside the layers that it adapts, as the original project and LLMs-from-scratch save it.

    NAME.linear.weight (out, in), NAME.linear.bias
    NAME.lora.A (in, r), NAME.lora.B (r, out)         W x becomes W x + alpha x A B

The tensors hold neither alpha nor whether it is divided by the rank. Both projects' notebooks use 16, undivided.
"""

from collections.abc import Callable

from torch import Tensor

from gpt2cli.errors import CheckpointError
from gpt2cli.model.lora import low_rank_update
from gpt2cli.untrusted import shown

ALPHA = 16.0
"""The factor of an update where no config gives another."""
_A, _B, _LINEAR = ".lora.A", ".lora.B", ".linear."


def merge_lora_layers(
    tensors: dict[str, Tensor], alpha: float | None, note: Callable[[str], None]
) -> dict[str, Tensor]:
    """The tensors with every update merged into its layer, computed in fp32.

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
        if not (weight.is_floating_point() and A.is_floating_point() and B.is_floating_point()):
            raise CheckpointError(f"{shown(layer)} has LoRA that is not floating point: save the model again")
        if A.dim() != 2 or B.dim() != 2 or A.shape[1] != B.shape[0] or (B.shape[1], A.shape[0]) != weight.shape:
            raise CheckpointError(f"{shown(layer)} has LoRA of another shape than its weight: save the model again")
        merged[f"{layer}.weight"] = weight.float() + low_rank_update(A.t(), B.t(), factor)
    for name in [name for name in merged if _LINEAR in name]:
        layer, _, leaf = name.rpartition(_LINEAR)
        if layer in layers:
            merged[f"{layer}.{leaf}"] = merged.pop(name)
    rank = max(int(tensors[layer + _A].shape[1]) for layer in layers)
    source = "from its config"
    if alpha is None:
        source = "the default; to change it, put a config.json with n_embd and lora_alpha beside the file"
    note(
        f"merged LoRA of rank {rank} into {len(layers)} layers with alpha {factor:g}, not divided by the rank, {source}"
    )
    return merged
