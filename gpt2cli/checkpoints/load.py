"""From a name or a file to a model that is ready to run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2cli.checkpoints import adapters, quantized_file
from gpt2cli.checkpoints.build import build, read_shape
from gpt2cli.checkpoints.configs import (
    assumed_heads,
    check_hub_config,
    config_beside,
    config_in,
    said_by,
    says_heads,
)
from gpt2cli.checkpoints.dialects import to_ours
from gpt2cli.checkpoints.files import Contents, read_checkpoint, read_json
from gpt2cli.checkpoints.metadata import tokenizer_in
from gpt2cli.checkpoints.places import check_file, find_base, find_directory, read_weights, refuse_outer
from gpt2cli.config import DEFAULT_MODEL
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.hub.tokenizer_files import (
    Tokenizer,
    check_tokenizer,
    read_tokenizer,
    remark,
)
from gpt2cli.inference.decoder import PRECISIONS, Decoder, make_decoder
from gpt2cli.inference.gpu.graph_decoder import check_graphs
from gpt2cli.model.device import pick_device
from gpt2cli.model.gpt import GPT
from gpt2cli.model.origin import Origin
from gpt2cli.paths import expand
from gpt2cli.progress import Note, Progress, ignore
from gpt2cli.untrusted import is_file, shown


def load(
    model: str | None = None,
    *,
    ckpt: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    offline: bool = False,
    for_text: bool = False,
    progress: Progress = ignore,
    compile: bool = False,
) -> Decoder:
    """As `load_plain`, with the weights laid out for speed. A decoder cannot be trained or saved.

    `precision` is one of PRECISIONS, or auto: see `decoder.pick_precision`. With `compile`, CUDA graphs decode.
    """
    target = pick_device(device)
    if compile:
        check_graphs(target)
    if precision not in ("auto", *PRECISIONS):
        raise UsageError(f"precision must be auto, {', '.join(PRECISIONS)}, not {precision}")
    plain = load_plain(model, ckpt=ckpt, device="cpu", offline=offline, for_text=for_text, progress=progress)
    return make_decoder(plain, target, precision, compile)


def load_plain(
    model: str | None = None,
    *,
    ckpt: str | Path | None = None,
    device: str = "auto",
    offline: bool = False,
    for_text: bool = False,
    progress: Progress = ignore,
) -> GPT:
    """A model in fp32 and evaluation mode: of a published name, a Hub repository or a directory, or from a file `ckpt`.

    If `ckpt` is a directory with a low-rank adapter in PEFT's format, the model is its base with the adapter merged;
    `model` may then name the base, and overrides the base that the adapter names. A model that is not in the cache is
    downloaded, with reports to `progress`; with `offline` that is an error. `progress` also gets notes of what was
    assumed or left out. With `for_text`, a model that was made for another tokenizer than GPT-2's is refused, before
    its weights are downloaded if the files beside them show it.
    Raises UsageError, CheckpointError, NetworkError or ResourceError.
    """
    path = None if ckpt is None else expand(ckpt)
    adapter = path is not None and adapters.is_adapter(path)
    if model is not None and path is not None and not adapter:
        raise UsageError("--model goes with --ckpt only where --ckpt is the directory of an adapter: give one of them")
    target = pick_device(device)
    if path is not None:
        gpt = load_adapted(path, model, offline, progress, for_text) if adapter else load_file(path, progress)
    else:
        name = DEFAULT_MODEL if model is None else model
        gpt = load_directory(find_directory(name, offline, progress, for_text), progress)
    if for_text:
        check_tokenizer(gpt, path or model)
    return gpt.to(target, torch.float32).eval()


def load_directory(directory: Path, progress: Progress = ignore) -> GPT:
    """The model in a directory of the Hub's layout: `config.json` and `model.safetensors`, whole or in shards."""
    config_file = directory / "config.json"
    if adapters.is_adapter(directory) and not is_file(config_file):
        raise UsageError(f"{directory} holds an adapter: give it as --ckpt, with --model for its base")
    if not is_file(config_file):
        refuse_outer(directory)
        raise CheckpointError(f"{directory} holds no config.json: give a directory in the Hub's layout")
    config = read_json(config_file)
    check_hub_config(config, config_file)
    stored = read_weights(directory)
    model = _make(stored, config, directory, progress)
    return _with_tokenizer(model, read_tokenizer(directory), directory, progress)


def load_adapted(
    path: Path, base: str | None, offline: bool = False, progress: Progress = ignore, for_text: bool = False
) -> GPT:
    """The model `base`, or else the one that the adapter in the directory `path` names, with the adapter merged.

    The base may also be a checkpoint file, as it is if one was fine-tuned further.
    """
    adapter = adapters.read_adapter(path)
    if base is None and adapter.base is None:
        raise UsageError(f"{path} does not say which model it adapts: name that as --model")
    name = str(adapter.base) if base is None else base
    try:
        found = find_base(name, offline, progress, for_text)
    except UsageError:
        if base is not None:
            raise
        raise CheckpointError(f"{path} adapts {shown(name)}, which is no model here: name it as --model") from None
    gpt = load_file(found, progress) if is_file(found) else load_directory(found, progress)
    gpt.float()  # so that what is held in fewer bits is rounded once, at the end
    adapters.merge_adapter(gpt, adapter, path)
    gpt.origin = replace(gpt.origin, precision="fp32")
    return _with_tokenizer(gpt, read_tokenizer(path), path, progress)


def load_file(path: Path, progress: Progress = ignore) -> GPT:
    """The model in one checkpoint file, in any dialect of `dialects.py`."""
    check_file(path)
    contents = read_checkpoint(path)
    own = config_in(contents.extra)
    beside = {} if says_heads(own) else config_beside(path, contents.tensors)
    config = beside | own
    check_hub_config(config, path)
    model = _make(contents, config, path, progress)
    tokenizer = tokenizer_in(contents.extra)
    if beside:
        tokenizer = tokenizer.or_else(read_tokenizer(path.parent))
    return _with_tokenizer(model, tokenizer, path, progress)


def _make(contents: Contents, config: dict[str, Any], where: Path, progress: Progress) -> GPT:
    """The model of tensors in any dialect and the config that goes with them."""

    def note(text: str) -> None:
        progress(Note(f"{where}: {text}"))

    stored = quantized_file.expand(contents.tensors, where)
    try:
        tensors = to_ours(stored, said_by(config, contents), note)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from None
    shape = read_shape(tensors, config, where)
    _check_whole(tensors, where)
    if heads := assumed_heads(config, shape.n_embd):
        note(heads)
    model = build(shape, tensors, where)
    model.origin = Origin(precision=quantized_file.precision(contents.tensors))
    return model


def _check_whole(tensors: dict[str, Tensor], where: Path) -> None:
    """Raise CheckpointError for a classifier, and for a model whose biases are missing."""
    head, table = tensors.get("lm_head.weight"), tensors.get("wte.weight")
    if head is not None and table is not None and head.dim() == 2 and head.shape[:1] != table.shape[:1]:
        raise CheckpointError(
            f"{where} has a head of {len(head)} outputs for a vocabulary of {len(table)}: a classifier is not opened; "
            "give the language model that it was made of"
        )
    if not any(name.endswith(".bias") for name in tensors):
        raise CheckpointError(
            f"{where} has no biases, and nothing says that it is to have none: "
            'put a config.json with n_embd, n_head and "bias": false beside it'
        )


def _with_tokenizer(model: GPT, tokenizer: Tokenizer, where: Path, progress: Progress) -> GPT:
    """The model, with the reason why its tokenizer is not GPT-2's, if so. Other remarks go to `progress`."""
    model.origin = replace(model.origin, other_tokenizer=model.origin.other_tokenizer or tokenizer.other)
    text = remark(tokenizer, model.config.vocab_size)
    if text and model.origin.other_tokenizer is None:
        progress(Note(f"{where}: {text}"))
    return model
