"""From a name or a file to a model that is ready to run."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt2cli.checkpoints import hub
from gpt2cli.checkpoints.build import N_HEAD, build, read_shape
from gpt2cli.checkpoints.dialects import to_ours
from gpt2cli.checkpoints.files import Contents, read_checkpoint, read_safetensors
from gpt2cli.checkpoints.transfer import Progress, ignore
from gpt2cli.config import DEFAULT_MODEL, PUBLISHED
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.model.device import pick_device, pick_dtype
from gpt2cli.model.gpt import GPT


def load(
    model: str | None = None,
    *,
    ckpt: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    offline: bool = False,
    progress: Progress = ignore,
) -> GPT:
    """A model in evaluation mode, from a published name, a Hub repository or a directory, or from a file `ckpt`.

    A name that is not in the cache is downloaded, with `progress` told how far; with `offline` that is an error.
    Raises UsageError, CheckpointError, NetworkError or ResourceError.
    """
    if model is not None and ckpt is not None:
        raise UsageError("give a model or a checkpoint, not both")
    target = pick_device(device)
    dtype = pick_dtype(precision, target)
    if ckpt is not None:
        gpt = load_file(Path(ckpt).expanduser())
    else:
        gpt = load_directory(find_directory(model or DEFAULT_MODEL, offline, progress))
    return gpt.to(target, dtype).eval()


def find_directory(model: str, offline: bool, progress: Progress) -> Path:
    """The directory that holds a model: a local one, or the one that the cache keeps for a name."""
    path = Path(model).expanduser()
    if model not in PUBLISHED and path.is_dir():
        return path
    return hub.resolve(model, offline=offline, progress=progress)


def load_directory(directory: Path) -> GPT:
    """The model in a directory of the Hub's layout: `config.json` and `model.safetensors`, whole or in shards."""
    config_file = directory / "config.json"
    if not config_file.is_file():
        raise CheckpointError(f"{directory} holds no config.json: give a directory in the Hub's layout")
    config = _read_json(config_file)
    _check_hub_config(config, config_file)
    tensors = to_ours(_read_weights(directory))
    shape = read_shape(tensors, config, config_file)
    return build(shape, tensors, directory)


def load_file(path: Path) -> GPT:
    """The model in one checkpoint file, in any dialect of `dialects.py`."""
    if path.is_dir():
        raise UsageError(f"{path} is a directory: give it as --model, or name a file in it")
    if not path.is_file():
        raise CheckpointError(f"{path} is not there: check the name of the checkpoint")
    contents = read_checkpoint(path)
    config = _config_in(contents)
    tensors = to_ours(contents.tensors, biases=config.get("bias", True) is not False)
    shape = read_shape(tensors, config or _config_beside(path, tensors), path)
    return build(shape, tensors, path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}): fetch it again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object: fetch it again")
    return value


def _check_hub_config(config: dict[str, Any], path: Path) -> None:
    """Refuse what GPT-2 code of the Hub can be configured to do and ours does not."""
    expected: dict[str, tuple[Any, ...]] = {
        "model_type": (None, "gpt2"),
        "activation_function": (None, "gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (None, True),
        "scale_attn_by_inverse_layer_idx": (None, False),
        "add_cross_attention": (None, False),
    }
    for name, values in expected.items():
        if config.get(name) not in values:
            raise CheckpointError(f"{path}: {name} is {config[name]!r}, and only {values[1]!r} is GPT-2")


def _read_weights(directory: Path) -> dict[str, Tensor]:
    whole, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if whole.is_file():
        return read_safetensors(whole).tensors
    if index.is_file():
        shards = _read_json(index).get("weight_map")
        if not isinstance(shards, dict) or any(Path(str(name)).name != name for name in shards.values()):
            raise CheckpointError(f"{index}: weight_map must name files in the same directory: fetch it again")
        tensors: dict[str, Tensor] = {}
        for shard in sorted(set(shards.values())):
            if not (directory / shard).is_file():
                raise CheckpointError(f"{directory / shard} is missing: fetch the model again")
            tensors |= read_safetensors(directory / shard).tensors
        return tensors
    if any(directory.glob("*.bin")):
        raise CheckpointError(f"{directory} has its weights in a pickle only, refused: convert them to safetensors")
    raise CheckpointError(f"{directory} holds no model.safetensors: fetch the model again")


def _config_in(contents: Contents) -> dict[str, Any]:
    """The config that a file carries: nanoGPT's `model_args`, ours, or as JSON in the metadata of safetensors."""
    for key in ("model_args", "config"):
        config = contents.extra.get(key)
        if isinstance(config, str):
            try:
                config = json.loads(config)
            except ValueError:
                continue
        if isinstance(config, dict) and any(name in config for name in N_HEAD):
            return config
    return {}


def _config_beside(path: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The `config.json` next to a bare state dict, if there is one and it is about a model of this width."""
    file, wte = path.parent / "config.json", tensors.get("wte.weight")
    if not file.is_file() or wte is None:
        return {}
    config = _read_json(file)
    return config if wte.dim() == 2 and config.get("n_embd", config.get("emb_dim")) == wte.shape[1] else {}
