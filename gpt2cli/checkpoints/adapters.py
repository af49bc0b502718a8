"""Low-rank adapters in the format of the PEFT library: a directory with `adapter_config.json` and a safetensors file.

PEFT adapts transformers' GPT-2, which stores its matrices transposed (`fan_in_fan_out`). The adapter's matrices are
not transposed, so only the names of its tensors differ from ours.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gpt2cli.checkpoints.adapter_files import WEIGHTS, read_adapter_config
from gpt2cli.checkpoints.files import read_safetensors
from gpt2cli.checkpoints.lazy_arrays import LazyArray, derived
from gpt2cli.checkpoints.lora_layers import with_update
from gpt2cli.checkpoints.mapped_files import Array
from gpt2cli.checkpoints.metadata import NO_METADATA, Metadata, metadata_in
from gpt2cli.checkpoints.peft_config import PeftConfig
from gpt2cli.checkpoints.tensor_checks import WEIGHT_TYPES, check_model_tensors, is_finite
from gpt2cli.config import ADAPTED, LoRAConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.model.quantization import Floats, floats
from gpt2cli.untrusted import shown_name

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
    facts       the prompt template and the provenance
    """

    directory: Path
    config: LoRAConfig
    tensors: dict[str, LazyArray]
    base: str | None
    scales: dict[str, float] = field(default_factory=dict)
    magnitudes: dict[str, LazyArray] = field(default_factory=dict)
    biases: dict[str, LazyArray] = field(default_factory=dict)
    facts: Metadata = NO_METADATA

    @property
    def is_plain(self) -> bool:
        """Whether one rank, one alpha and the matrices A and B are all that it holds."""
        ranks = {tensor.shape[0] for name, tensor in self.tensors.items() if name.endswith("lora_A")}
        factor = self.config.alpha / self.config.rank
        alike = all(math.isclose(scale, factor) for scale in self.scales.values())
        return alike and ranks == {self.config.rank} and not self.magnitudes and not self.biases


def read_adapter(directory: Path) -> Adapter:
    """The adapter in a directory that PEFT or `save_adapter` wrote.

    Raises CheckpointError, naming the field or tensor, for one that is damaged, is a pickle, or changes more than the
    weights of the blocks' linear layers and the biases.
    """
    config, base = read_adapter_config(directory)
    return _read_tensors(directory, config, base)


def merge_adapter(weights: Mapping[str, LazyArray], adapter: Adapter) -> dict[str, LazyArray]:
    """A model's weights with an adapter's updates added. These weights are computed, in fp32, when they are read.

    Raises CheckpointError if the adapter was made for a model of another shape.
    """
    where, merged = adapter.directory, dict(weights)
    for layer, scale in adapter.scales.items():
        weight = weights.get(f"{layer}.weight")
        if weight is None:
            raise CheckpointError(f"{where} is an adapter for another base: this one has no {layer}")
        A, B = adapter.tensors[f"{layer}.lora_A"], adapter.tensors[f"{layer}.lora_B"]
        there = (B.shape[0], A.shape[1])
        if there != weight.shape:
            raise CheckpointError(
                f"{where} is an adapter for another base: {layer} is {weight.shape} here, {there} there"
            )
        merged[f"{layer}.weight"] = weight = with_update(weight, A, B, scale)
        if layer in adapter.magnitudes:
            parts = (weight, adapter.magnitudes[layer])
            merged[f"{layer}.weight"] = derived(_with_magnitudes, weight.shape, weight.dtype, *parts)
    for name, bias in adapter.biases.items():
        if name not in weights or weights[name].shape != bias.shape:
            raise CheckpointError(f"{where} is an adapter for another base: {name} does not fit")
        merged[name] = derived(floats, bias.shape, np.dtype(np.float32), bias)
    return merged


def _with_magnitudes(weight: Floats, magnitudes: Array) -> Floats:
    """Rows of these norms (out,): DoRA, "Weight-Decomposed Low-Rank Adaptation", Liu et al. 2024. Changes `weight`."""
    norms = np.maximum(np.linalg.norm(weight, axis=1), np.finfo(np.float32).tiny)
    weight *= (floats(magnitudes) / norms)[:, None]
    return weight


def _read_tensors(directory: Path, config: PeftConfig, base: str | None) -> Adapter:
    """The adapter with its matrices under our names. They are checked to come in pairs that fit."""
    file = directory / WEIGHTS
    contents = read_safetensors(file)
    adapter = Adapter(directory, config.lora, {}, base, facts=metadata_in(contents.extra, file))
    check_model_tensors(contents.tensors, file)
    for name, tensor in contents.tensors.items():
        found, bias = _NAME.fullmatch(name), _BIAS.fullmatch(name)
        if tensor.dtype not in WEIGHT_TYPES or not is_finite(tensor.read()):
            raise CheckpointError(f"{file}: {shown_name(name)} has values that are not finite numbers: save it again")
        if bias and config.biases:
            adapter.biases[f"{bias[1]}.bias"] = tensor
        elif found and found[3] == "magnitude_vector" and config.dora:
            adapter.magnitudes[found[2]] = tensor
        elif found and found[3] != "magnitude_vector":
            _check_rank(tensor, found[3], config, f"{file}: {name}")
            adapter.tensors[f"{found[2]}.lora_{found[3]}"] = tensor
            if found[3] == "A":
                adapter.scales[found[2]] = config.scale(found[1] + found[2], tensor.shape[0])
        else:
            raise CheckpointError(
                f"{file}: {shown_name(name)} is no low-rank matrix of a GPT-2's block: merge it with PEFT first"
            )
    _check_pairs(adapter, config, file)
    return adapter


def _check_rank(tensor: LazyArray, matrix: str, config: PeftConfig, where: str) -> None:
    if tensor.ndim != 2 or tensor.shape[0 if matrix == "A" else 1] not in config.ranks:
        ranks = " or ".join(map(str, sorted(config.ranks)))
        raise CheckpointError(f"{where} is {tensor.shape}, not of rank {ranks}: save it again")


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
