"""Low-rank adapters in the format of the PEFT library: a directory with `adapter_config.json` and a safetensors file.

PEFT adapts transformers' GPT-2, whose matrices lie the other way round (`fan_in_fan_out`); the adapter's own do not,
so that only the names of its tensors differ from ours.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gpt2cli.checkpoints.files import read_json, read_safetensors
from gpt2cli.checkpoints.limits import WEIGHT_TYPES, check_model_tensors
from gpt2cli.checkpoints.save import as_metadata, own_tensors, writing
from gpt2cli.config import LoRAConfig
from gpt2cli.errors import CheckpointError, ResourceError
from gpt2cli.model.gpt import GPT
from gpt2cli.model.lora import ADAPTED, low_rank_update
from gpt2cli.untrusted import is_directory, is_file, shown, shown_name

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model.transformer."
_MODULES = "|".join(map(re.escape, ADAPTED))
_NAME = re.compile(rf"base_model\.model\.(?:transformer\.)?(h\.\d{{1,6}}\.(?:{_MODULES}))\.(lora_[AB])\.weight")

# fields of a config that are read or checked below, and those that change nothing in what the tensors mean
_READ = {"r", "lora_alpha", "use_rslora", "base_model_name_or_path", "revision"}
_CHECKED = {"peft_type", "bias", "init_lora_weights"}
_HARMLESS = {
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out", "task_type"),
    *("lora_dropout", "inference_mode", "auto_mapping", "eva_config", "qalora_group_size", "megatron_core"),
    "peft_version",
}


@dataclass(frozen=True)
class Adapter:
    """What a directory in PEFT's format holds."""

    config: LoRAConfig
    tensors: dict[str, Tensor]  # named as by `lora_state`, perhaps of some of the layers only
    base: str | None  # the model that it was trained on: a name on the Hub or a directory


def is_adapter(path: Path) -> bool:
    """Whether a path is a directory that holds an adapter."""
    return any(is_file(path / name) for name in (CONFIG, WEIGHTS, PICKLE))


def save_adapter(
    directory: Path,
    tensors: dict[str, Tensor],
    config: LoRAConfig,
    *,
    base: str | None = None,
    template: dict[str, str] | None = None,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write what `lora_state` gives as a directory that PEFT opens on transformers' GPT-2.

    The prompt template and where the adapter came from (anything that JSON can say) go into the header of the
    tensors' file. Each file that is there already stays until the new one is complete. Raises ResourceError if
    the disk is full, or the parent directory is not there.
    """
    name, at, revision = (base or "").partition("@")
    if at and Path(str(base)).exists():
        name, revision = str(base), ""
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": name or None,
        "revision": revision or None,
        "r": config.rank,
        "lora_alpha": int(config.alpha) if config.alpha == int(config.alpha) else config.alpha,
        "lora_dropout": 0.0,
        "target_modules": list(dict.fromkeys(name.rpartition(".")[2] for name in ADAPTED)),
        "fan_in_fan_out": True,  # of transformers' GPT-2, which PEFT adapts
        "bias": "none",
        "inference_mode": True,
    }
    metadata = as_metadata({"format": "pt", "template": template, "provenance": provenance or {}})
    theirs = own_tensors({f"{_PREFIX}{name}.weight": tensor for name, tensor in tensors.items()})
    try:
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise ResourceError(f"cannot make the directory {directory} ({error.strerror}): write elsewhere") from None
    with writing(directory / WEIGHTS) as temporary:
        save_file(theirs, temporary, metadata)
    with writing(directory / CONFIG) as temporary:
        temporary.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def read_adapter(directory: Path) -> Adapter:
    """The adapter in a directory that PEFT or `save_adapter` wrote.

    Raises CheckpointError, naming the field or tensor, for one that is damaged, is a pickle, or does more than add
    low-rank updates to the blocks' linear layers.
    """
    file = directory / CONFIG
    if not is_file(file):
        raise CheckpointError(f"{directory} holds no {CONFIG}: save the adapter again")
    fields = read_json(file)
    config = _read_config(fields, file)
    base, revision = fields.get("base_model_name_or_path"), fields.get("revision")
    for name, value in (("base_model_name_or_path", base), ("revision", revision)):
        if value is not None and not (isinstance(value, str) and value.isprintable()):
            raise CheckpointError(f"{file}: {name} is {shown(value)}, not a name: save the adapter again")
    if base and revision and not is_directory(Path(base)):
        base = f"{base}@{revision}"
    return Adapter(config, _read_tensors(directory, config.rank), base or None)


@torch.no_grad()
def merge_adapter(model: GPT, adapter: Adapter, where: object) -> None:
    """Add an adapter's updates to the model's weights, in place. They are computed in fp32.

    Raises CheckpointError, with the model as it was, if the adapter was made for a model of another shape.
    """
    layers = [name.removesuffix(".lora_A") for name in adapter.tensors if name.endswith(".lora_A")]
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for name in layers:
        if name not in linear:
            raise CheckpointError(f"{where} is an adapter for another base: this one has no {name}")
        A, B = adapter.tensors[f"{name}.lora_A"], adapter.tensors[f"{name}.lora_B"]
        adapted, own = (B.shape[0], A.shape[1]), tuple(linear[name].weight.shape)
        if adapted != own:
            raise CheckpointError(f"{where} is an adapter for another base: {name} is {own} here, {adapted} there")
    for name in layers:
        A, B = adapter.tensors[f"{name}.lora_A"], adapter.tensors[f"{name}.lora_B"]
        linear[name].weight += low_rank_update(A, B, adapter.config.alpha / adapter.config.rank)


def _read_config(fields: dict[str, Any], file: Path) -> LoRAConfig:
    """Rank and alpha. Raises CheckpointError for what cannot be told in these two."""
    for name, value, allowed in (
        ("peft_type", fields.get("peft_type"), ("LORA",)),
        ("bias", fields.get("bias", "none"), ("none",)),
        # the others begin with changed base weights
        ("init_lora_weights", fields.get("init_lora_weights", True), (True, False, "gaussian", "orthogonal", "eva")),
    ):
        if value not in allowed:
            raise CheckpointError(
                f"{file}: {name} is {shown(value)}, which gpt2cli cannot apply: merge it with PEFT first"
            )
    for name, value in fields.items():
        if value and name not in _READ | _CHECKED | _HARMLESS:
            raise CheckpointError(
                f"{file}: {shown_name(name)} is set, which gpt2cli cannot apply: merge it with PEFT first"
            )
    rank, alpha = fields.get("r"), fields.get("lora_alpha")
    if type(rank) is not int or not 1 <= rank <= 2**20:
        raise CheckpointError(f"{file}: r is {shown(rank)}, not a rank: save the adapter again")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 2**53:
        raise CheckpointError(f"{file}: lora_alpha is {shown(alpha)}, not a number above 0: save the adapter again")
    # rank-stabilised LoRA (Kalajdzievski 2023) scales by alpha / sqrt(r)
    return LoRAConfig(rank, alpha * (math.sqrt(rank) if fields.get("use_rslora") else 1.0))


def _read_tensors(directory: Path, rank: int) -> dict[str, Tensor]:
    """The matrices under our names, all in pairs that fit each other."""
    file = directory / WEIGHTS
    if not is_file(file):
        if (directory / PICKLE).is_file():
            raise CheckpointError(f"{directory} has its weights in a pickle only, refused: save them as safetensors")
        raise CheckpointError(f"{directory} holds no {WEIGHTS}: save the adapter again")
    tensors: dict[str, Tensor] = {}
    stored = read_safetensors(file).tensors
    check_model_tensors(stored, file)
    for name, tensor in stored.items():
        found = _NAME.fullmatch(name)
        if not found:
            raise CheckpointError(
                f"{file}: {shown_name(name)} is no low-rank matrix of a GPT-2's block: merge it with PEFT first"
            )
        module, matrix = found.groups()
        if tensor.dim() != 2 or tensor.shape[0 if matrix == "lora_A" else 1] != rank:
            raise CheckpointError(f"{file}: {name} is {tuple(tensor.shape)}, not of rank {rank}: save it again")
        if tensor.dtype not in WEIGHT_TYPES or not tensor.isfinite().all():
            raise CheckpointError(f"{file}: {name} has values that are not finite numbers: save it again")
        tensors[f"{module}.{matrix}"] = tensor
    for name in tensors:
        other = name[:-1] + ("B" if name.endswith("A") else "A")
        if other not in tensors:
            raise CheckpointError(f"{file} is not whole: {other} is missing: save it again")
    if not tensors:
        raise CheckpointError(f"{file} holds no tensors: save the adapter again")
    return tensors
