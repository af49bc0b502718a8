"""From a name or a file to a model that is ready to run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2cli.checkpoints import adapters, compact, hub
from gpt2cli.checkpoints.build import N_HEAD, build, read_shape
from gpt2cli.checkpoints.dialects import to_ours
from gpt2cli.checkpoints.files import Contents, read_checkpoint, read_json, read_safetensors, read_shards
from gpt2cli.checkpoints.transfer import Progress, ignore
from gpt2cli.config import DEFAULT_MODEL, PUBLISHED, TINY
from gpt2cli.errors import CheckpointError, DataError, UsageError
from gpt2cli.model.device import pick_device
from gpt2cli.model.gpt import GPT
from gpt2cli.model.packed import PRECISIONS, prepare
from gpt2cli.paths import asset, expand
from gpt2cli.prompts import PromptTemplate
from gpt2cli.untrusted import is_directory, is_file, shown


def load(
    model: str | None = None,
    *,
    ckpt: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    offline: bool = False,
    progress: Progress = ignore,
) -> GPT:
    """As `load_plain`, with the weights laid out to be run fast, and never to be trained or saved.

    `precision` is one of PRECISIONS, or auto: see `packed.pick_precision`.
    """
    target = pick_device(device)
    if precision not in ("auto", *PRECISIONS):
        raise UsageError(f"precision must be auto, {', '.join(PRECISIONS)}, not {precision}")
    return prepare(load_plain(model, ckpt=ckpt, device="cpu", offline=offline, progress=progress), target, precision)


def load_plain(
    model: str | None = None,
    *,
    ckpt: str | Path | None = None,
    device: str = "auto",
    offline: bool = False,
    progress: Progress = ignore,
) -> GPT:
    """A model in fp32 and evaluation mode: of a published name, a Hub repository or a directory, or from a file `ckpt`.

    If `ckpt` is a directory with a low-rank adapter in PEFT's format, the model is its base with the adapter merged;
    `model` may then name the base, and does so in place of what the adapter says. A name that is not in the cache is
    downloaded, with `progress` told how far; with `offline` that is an error.
    Raises UsageError, CheckpointError, NetworkError or ResourceError.
    """
    path = None if ckpt is None else expand(ckpt)
    adapter = path is not None and adapters.is_adapter(path)
    if model is not None and path is not None and not adapter:
        raise UsageError("give a model or a checkpoint, not both")
    target = pick_device(device)
    if path is not None:
        gpt = load_adapted(path, model, offline, progress) if adapter else load_file(path)
    else:
        gpt = load_directory(find_directory(DEFAULT_MODEL if model is None else model, offline, progress))
    return gpt.to(target, torch.float32).eval()


def find_directory(model: str, offline: bool, progress: Progress) -> Path:
    """The directory that holds a model: a local one, or the one that the cache keeps for a name."""
    if model == TINY:
        return asset(TINY)
    path = expand(model)
    if model and model not in PUBLISHED and is_directory(path):
        return path
    if model.startswith((".", "~")) or path.is_absolute():
        raise UsageError(f"there is no directory {model}: give one in the Hub's layout, or a name such as gpt2")
    return hub.resolve(model, offline=offline, progress=progress)


def load_directory(directory: Path) -> GPT:
    """The model in a directory of the Hub's layout: `config.json` and `model.safetensors`, whole or in shards."""
    config_file = directory / "config.json"
    if not is_file(config_file):
        raise CheckpointError(f"{directory} holds no config.json: give a directory in the Hub's layout")
    config = read_json(config_file)
    _check_hub_config(config, config_file)
    stored = _read_weights(directory)
    tensors = to_ours(compact.expand(stored, directory))
    model = build(read_shape(tensors, config, config_file), tensors, directory)
    model.precision = compact.precision(stored)
    return model


def load_adapted(path: Path, base: str | None, offline: bool = False, progress: Progress = ignore) -> GPT:
    """The model `base`, or else the one that the adapter in the directory `path` names, with the adapter merged.

    The base may also be a checkpoint file, as it is if one was fine-tuned further.
    """
    adapter = adapters.read_adapter(path)
    if base is None and adapter.base is None:
        raise UsageError(f"{path} does not say which model it adapts: name that as --model")
    name = str(adapter.base) if base is None else base
    try:
        file = expand(name)
        found = file if is_file(file) else find_directory(name, offline, progress)
    except UsageError:
        if base is not None:
            raise
        raise CheckpointError(
            f"{path} adapts {shown(adapter.base)}, which is no model here: name it as --model"
        ) from None
    gpt = load_file(found) if is_file(found) else load_directory(found)
    gpt.float()  # so that what is held in fewer bits is rounded once, at the end
    adapters.merge_adapter(gpt, adapter, path)
    gpt.precision = "fp32"
    return gpt


def load_file(path: Path) -> GPT:
    """The model in one checkpoint file, in any dialect of `dialects.py`."""
    if is_directory(path):
        raise UsageError(f"{path} is a directory: give it as --model, or name a file in it")
    contents = read_checkpoint(path)
    config = _config_in(contents)
    tensors = to_ours(compact.expand(contents.tensors, path), biases=config.get("bias", True) is not False)
    config = config or _config_beside(path, tensors)
    _check_hub_config(config, path)
    model = build(read_shape(tensors, config, path), tensors, path)
    model.precision = compact.precision(contents.tensors)
    return model


@dataclass(frozen=True)
class Facts:
    """What a checkpoint says besides its weights and config, if it says it."""

    template: dict[str, str] | None  # the prompt template that the model was trained with
    provenance: dict[str, Any]  # where it came from

    def prompt_template(self, where: object) -> PromptTemplate | None:
        """The template, if there is one. Raises CheckpointError if it lacks a part."""
        try:
            return None if self.template is None else PromptTemplate.from_dict(self.template)
        except DataError as error:
            raise CheckpointError(f"{where}: {error}") from None


NO_FACTS = Facts(None, {})


def read_facts(ckpt: str | Path | None, model: str | None = None) -> Facts:
    """What a checkpoint file or an adapter's directory says of itself, or without one the directory of a model.

    A published model says nothing, the bundled one does. Raises CheckpointError if there is something that cannot be
    read.
    """
    if ckpt is None:
        file = (asset(TINY) if model == TINY else expand(model or DEFAULT_MODEL)) / hub.WEIGHTS
        if model in (None, *PUBLISHED) or not is_file(file):
            return NO_FACTS
    else:
        path = expand(ckpt)
        file = path / adapters.WEIGHTS if adapters.is_adapter(path) else path
    extra = read_checkpoint(file).extra
    template, provenance = (_decoded(extra.get(name)) for name in ("template", "provenance"))
    if template is not None and not (isinstance(template, dict) and all(map(_is_text, template.items()))):
        raise CheckpointError(f"{file}: template is not a table of texts: save the checkpoint again")
    return Facts(template, provenance if isinstance(provenance, dict) else {})


def _is_text(item: tuple[Any, Any]) -> bool:
    return all(isinstance(part, str) for part in item)


def _decoded(value: Any) -> Any:
    """A fact as it was: in the header of safetensors all but texts are JSON."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
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
            raise CheckpointError(f"{path}: {name} is {shown(config[name])}, and only {values[1]!r} is GPT-2")


def _read_weights(directory: Path) -> dict[str, Tensor]:
    whole, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if is_file(whole):
        return read_safetensors(whole).tensors
    if is_file(index):
        return read_shards(index)
    if any(directory.glob("*.bin")):
        raise CheckpointError(f"{directory} has its weights in a pickle only, refused: convert them to safetensors")
    raise CheckpointError(f"{directory} holds no model.safetensors: fetch the model again")


def _config_in(contents: Contents) -> dict[str, Any]:
    """The config that a file carries: nanoGPT's `model_args`, ours, or as JSON in the metadata of safetensors."""
    for key in ("model_args", "config"):
        config = _decoded(contents.extra.get(key))
        if isinstance(config, dict) and any(name in config for name in N_HEAD):
            return config
    return {}


def _config_beside(path: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The `config.json` next to a bare state dict, if there is one and it is about a model of this width."""
    file, wte = path.parent / "config.json", tensors.get("wte.weight")
    if not is_file(file) or wte is None:
        return {}
    config = read_json(file)
    return config if wte.dim() == 2 and config.get("n_embd", config.get("emb_dim")) == wte.shape[1] else {}
