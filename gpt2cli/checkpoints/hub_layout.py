"""Directories in the Hub's layout: `config.json` with `model.safetensors`, which may be in shards.

These checks read only names and `config.json`, without torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2cli.checkpoints import adapter_files
from gpt2cli.checkpoints.headers import check_safetensors, read_json
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.hub.names import CONFIG, INDEX, WEIGHTS
from gpt2cli.untrusted import is_file, shown


def check_directory(directory: Path) -> None:
    """Raise UsageError or CheckpointError for a directory that holds no model, or none that can be opened."""
    read_hub_config(directory)
    check_weights(directory)
    if is_file(directory / WEIGHTS):
        check_safetensors(directory / WEIGHTS)


def read_hub_config(directory: Path) -> dict[str, Any]:
    """The `config.json` of a directory. Raises UsageError for an adapter, CheckpointError for what is no GPT-2."""
    file = directory / CONFIG
    if adapter_files.is_adapter(directory) and not is_file(file):
        raise UsageError(f"{directory} holds an adapter: give it as --ckpt, with --model for its base")
    if not is_file(file):
        refuse_parent_of_adapter(directory)
        raise CheckpointError(f"{directory} holds no {CONFIG}: give a directory in the Hub's layout")
    config = read_json(file)
    check_hub_config(config, file)
    return config


def check_hub_config(config: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError for a setting of transformers' GPT-2 that our GPT-2 does not support."""
    expected: dict[str, tuple[Any, ...]] = {
        "model_type": (None, "gpt2"),
        "activation_function": (None, "gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (None, True),
        "scale_attn_by_inverse_layer_idx": (None, False),
        "add_cross_attention": (None, False),
    }
    for name, values in expected.items():
        if config.get(name) not in values:
            raise CheckpointError(f"{path}: {name} is {shown(config[name])}, and only {values[1]!r} is GPT-2")


def check_weights(directory: Path) -> None:
    """Raise CheckpointError if a directory has no weights in safetensors."""
    if is_file(directory / WEIGHTS) or is_file(directory / INDEX):
        return
    if any(directory.glob("*.bin")):
        raise CheckpointError(f"{directory} has its weights in a pickle only, refused: convert them to safetensors")
    raise CheckpointError(f"{directory} holds no {WEIGHTS}: fetch the model again")


def refuse_parent_of_adapter(directory: Path) -> None:
    """Raise UsageError if an adapter is in a directory inside this one, where PEFT saves adapters with names."""
    if not is_file(directory / CONFIG):
        inside = sorted(child for child in directory.iterdir() if adapter_files.is_adapter(child))
        if inside:
            raise UsageError(f"{directory} holds an adapter in a directory: give {inside[0]} as --ckpt")
