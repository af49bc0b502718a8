"""Low-rank adapters in the format of the PEFT library: a directory with `adapter_config.json` and a safetensors file.

PEFT adapts transformers' GPT-2, which stores its matrices transposed (`fan_in_fan_out`). The adapter's matrices are
not transposed, so only the names of its tensors differ from ours.
"""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gpt2cli.checkpoints.adapter_files import CONFIG, WEIGHTS, read_adapter_config
from gpt2cli.checkpoints.files import read_safetensors
from gpt2cli.checkpoints.peft_config import PeftConfig
from gpt2cli.checkpoints.save import disk_errors, write_tensors, writing
from gpt2cli.checkpoints.tensor_checks import WEIGHT_TYPES, check_model_tensors
from gpt2cli.config import LoRAConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.model.gpt import GPT
from gpt2cli.model.lora import ADAPTED, low_rank_update
from gpt2cli.untrusted import shown_name

_PREFIX = "base_model.model.transformer."
_MODULES = "|".join(map(re.escape, ADAPTED))
_NAME = re.compile(
    rf"base_model\.model\.(transformer\.|)(h\.\d{{1,6}}\.(?:{_MODULES}))\.lora_"
    r"(A|B|magnitude_vector)(?:\.weight)?"
)
_BIAS = re.compile(
    rf"base_model\.model\.(?:transformer\.)?(ln_f|h\.\d{{1,6}}\.(?:{_MODULES}|ln_1|ln_2))(?:\.base_layer)?\.bias"
)


@dataclass(frozen=True)
class Adapter:
    """A low-rank adapter from a directory in PEFT's format.

    directory   the directory
    tensors     the matrices A and B, under the names of `lora_state`; some layers may have none
    base        the model that the adapter was trained on: a name on the Hub, a directory or a file
    scales      the factor of each layer's B A, by our name for the layer
    magnitudes  the norms of the rows of each adapted weight (out,), if it is DoRA
    biases      biases that replace the base's, by our name
    """

    directory: Path
    config: LoRAConfig
    tensors: dict[str, Tensor]
    base: str | None
    scales: dict[str, float] = field(default_factory=dict)
    magnitudes: dict[str, Tensor] = field(default_factory=dict)
    biases: dict[str, Tensor] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether one rank, one alpha and the matrices A and B are all that it holds."""
        ranks = {tensor.shape[0] for name, tensor in self.tensors.items() if name.endswith("lora_A")}
        factor = self.config.alpha / self.config.rank
        alike = all(math.isclose(scale, factor) for scale in self.scales.values())
        return alike and ranks == {self.config.rank} and not self.magnitudes and not self.biases


def save_adapter(
    directory: Path,
    tensors: dict[str, Tensor],
    config: LoRAConfig,
    *,
    base: str | None = None,
    template: dict[str, str] | None = None,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write the tensors of `lora_state` to a directory that PEFT opens on transformers' GPT-2.

    The prompt template and the provenance (any JSON value) go into the header of the tensors' file. An existing file
    stays until the new one is complete. Raises ResourceError if the disk is full, or there is no parent directory.
    """
    name, at, revision = (base or "").partition("@")
    if at and Path(str(base)).exists():
        name, revision = str(base), ""
    fields = {
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
    theirs = {f"{_PREFIX}{name}.weight": tensor for name, tensor in tensors.items()}
    with disk_errors(directory):
        directory.mkdir(exist_ok=True)
    with writing(directory / WEIGHTS) as temporary:
        write_tensors(temporary, theirs, {"format": "pt", "template": template, "provenance": provenance or {}})
    with writing(directory / CONFIG) as temporary:
        temporary.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def read_adapter(directory: Path) -> Adapter:
    """The adapter in a directory that PEFT or `save_adapter` wrote.

    Raises CheckpointError, naming the field or tensor, for one that is damaged, is a pickle, or changes more than the
    weights of the blocks' linear layers and the biases.
    """
    config, base = read_adapter_config(directory)
    return _read_tensors(directory, config, base)


@torch.no_grad()
def merge_adapter(model: GPT, adapter: Adapter) -> None:
    """Add an adapter's updates to the model's weights, in place. They are computed in fp32.

    A model on the meta device is only checked. Raises CheckpointError, with the model as it was, if the adapter was
    made for a model of another shape.
    """
    where = adapter.directory
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for name in adapter.scales:
        if name not in linear:
            raise CheckpointError(f"{where} is an adapter for another base: this one has no {name}")
        A, B = adapter.tensors[f"{name}.lora_A"], adapter.tensors[f"{name}.lora_B"]
        there, here = (B.shape[0], A.shape[1]), tuple(linear[name].weight.shape)
        if there != here:
            raise CheckpointError(f"{where} is an adapter for another base: {name} is {here} here, {there} there")
    parameters = dict(model.named_parameters())
    for name, bias in adapter.biases.items():
        if name not in parameters or parameters[name].shape != bias.shape:
            raise CheckpointError(f"{where} is an adapter for another base: {name} does not fit")
    if model.wte.weight.is_meta:
        return
    for name, scale in adapter.scales.items():
        weight = linear[name].weight
        weight += low_rank_update(adapter.tensors[f"{name}.lora_A"], adapter.tensors[f"{name}.lora_B"], scale)
        if name in adapter.magnitudes:  # DoRA, "Weight-Decomposed Low-Rank Adaptation", Liu et al. 2024
            smallest = torch.finfo(torch.float32).tiny
            weight *= adapter.magnitudes[name].float()[:, None] / weight.norm(dim=1, keepdim=True).clamp(min=smallest)
    for name, bias in adapter.biases.items():
        parameters[name].copy_(bias)


def _read_tensors(directory: Path, config: PeftConfig, base: str | None) -> Adapter:
    """The adapter with its matrices under our names. They are checked to come in pairs that fit."""
    file = directory / WEIGHTS
    adapter = Adapter(directory, config.lora, {}, base)
    stored = read_safetensors(file).tensors
    check_model_tensors(stored, file)
    for name, tensor in stored.items():
        found, bias = _NAME.fullmatch(name), _BIAS.fullmatch(name)
        if tensor.dtype not in WEIGHT_TYPES or not tensor.float().isfinite().all():
            raise CheckpointError(f"{file}: {shown_name(name)} has values that are not finite numbers: save it again")
        if bias and config.biases:
            adapter.biases[f"{bias[1]}.bias"] = tensor
        elif found and found[3] == "magnitude_vector" and config.dora:
            adapter.magnitudes[found[2]] = tensor
        elif found and found[3] != "magnitude_vector":
            _check_rank(tensor, found[3], config, f"{file}: {name}")
            adapter.tensors[f"{found[2]}.lora_{found[3]}"] = tensor
            if found[3] == "A":
                adapter.scales[found[2]] = config.scale(found[1] + found[2], len(tensor))
        else:
            raise CheckpointError(
                f"{file}: {shown_name(name)} is no low-rank matrix of a GPT-2's block: merge it with PEFT first"
            )
    _check_pairs(adapter, config, file)
    return adapter


def _check_rank(tensor: Tensor, matrix: str, config: PeftConfig, where: str) -> None:
    if tensor.dim() != 2 or tensor.shape[0 if matrix == "A" else 1] not in config.ranks:
        ranks = " or ".join(map(str, sorted(config.ranks)))
        raise CheckpointError(f"{where} is {tuple(tensor.shape)}, not of rank {ranks}: save it again")


def _check_pairs(adapter: Adapter, config: PeftConfig, file: Path) -> None:
    """Raise CheckpointError if a layer lacks a matrix or its magnitudes."""
    for name, tensor in adapter.tensors.items():
        other = name[:-1] + ("B" if name.endswith("A") else "A")
        if other not in adapter.tensors:
            raise CheckpointError(f"{file} is not whole: {other} is missing: save it again")
        if name.endswith("A") and tensor.shape[0] != adapter.tensors[other].shape[1]:
            raise CheckpointError(f"{file}: {name} and {other} are of two ranks: save it again")
    if not adapter.tensors:
        raise CheckpointError(f"{file} holds no tensors: save the adapter again")
    for layer in {*adapter.scales, *adapter.magnitudes} if config.dora else ():
        B, magnitude = adapter.tensors.get(f"{layer}.lora_B"), adapter.magnitudes.get(layer)
        if B is None or magnitude is None or magnitude.shape != B.shape[:1]:
            raise CheckpointError(f"{file}: {layer} has no magnitude for each row, which use_dora needs: save it again")
