"""From a directory or a file to a GPT on the CPU, in the types that are stored, or only to its shape."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt2cli.checkpoints import adapters, configs, quantized_file
from gpt2cli.checkpoints.build import build, read_shape
from gpt2cli.checkpoints.dialects import to_ours
from gpt2cli.checkpoints.files import Contents, read_checkpoint, read_weights
from gpt2cli.checkpoints.hub_layout import check_hub_config, read_hub_config
from gpt2cli.checkpoints.metadata import tokenizer_in
from gpt2cli.checkpoints.places import check_file
from gpt2cli.errors import CheckpointError
from gpt2cli.hub.tokenizer_files import Tokenizer, read_tokenizer, remark
from gpt2cli.model.gpt import GPT
from gpt2cli.model.origin import Origin
from gpt2cli.progress import Note, Progress, ignore
from gpt2cli.untrusted import is_file


def read_model(path: Path, progress: Progress = ignore, *, only_shape: bool = False) -> GPT:
    """The model in a checkpoint file of any dialect, or in a directory of the Hub's layout.

    `progress` gets notes about what was assumed or left out. With `only_shape`, the parameters are on the meta device:
    the names, types and shapes of all tensors are checked, but their values are neither read nor checked.
    Raises UsageError or CheckpointError.
    """
    return _read_file(path, progress, only_shape) if is_file(path) else _read_directory(path, progress, only_shape)


def add_adapter(model: GPT, adapter: adapters.Adapter, progress: Progress = ignore) -> GPT:
    """The model in fp32 with an adapter merged into it. On the meta device, only shapes are checked.

    Raises CheckpointError if the adapter was made for another base.
    """
    model.float()  # the stored type would round the sum once more
    adapters.merge_adapter(model, adapter)
    model.origin = replace(model.origin, precision="fp32")
    return _with_tokenizer(model, read_tokenizer(adapter.directory), adapter.directory, progress)


def _read_directory(directory: Path, progress: Progress, only_shape: bool) -> GPT:
    """The model of `config.json` and `model.safetensors`, which may be in shards."""
    config = read_hub_config(directory)
    model = _make(read_weights(directory), config, directory, progress, only_shape)
    return _with_tokenizer(model, read_tokenizer(directory), directory, progress)


def _read_file(path: Path, progress: Progress, only_shape: bool) -> GPT:
    check_file(path)
    contents = read_checkpoint(path)
    own = configs.config_in(contents.extra)
    beside = {} if configs.has_heads(own) else configs.config_beside(path, contents.tensors)
    config = beside | own
    check_hub_config(config, path)
    model = _make(contents, config, path, progress, only_shape)
    tokenizer = tokenizer_in(contents.extra)
    if beside:
        tokenizer = tokenizer.or_else(read_tokenizer(path.parent))
    return _with_tokenizer(model, tokenizer, path, progress)


def _make(contents: Contents, config: dict[str, Any], where: Path, progress: Progress, only_shape: bool) -> GPT:
    """A model from a file's tensors, in any dialect, and its config. `where` names the file in messages."""

    def note(text: str) -> None:
        progress(Note(f"{where}: {text}"))

    tensors = quantized_file.to_floats(contents.tensors, where, only_shape=only_shape)
    biases = config.get("bias", True) is not False
    tied, alpha = configs.tied_in(config, contents), configs.alpha_in(config, contents.extra)
    try:
        tensors = to_ours(tensors, biases=biases, tied=tied, lora_alpha=alpha, note=note)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from None
    shape = read_shape(tensors, config, where)
    _check_whole(tensors, where)
    if heads := configs.assumed_heads(config, shape.n_embd):
        note(heads)
    model = build(shape, tensors, where)
    model.origin = Origin(precision=quantized_file.precision(contents.tensors))
    return model


def _check_whole(tensors: dict[str, Tensor], where: Path) -> None:
    """Raise CheckpointError for a classifier, and for a model without biases whose config does not say so."""
    head, table = tensors.get("lm_head.weight"), tensors.get("wte.weight")
    if head is not None and table is not None and head.dim() == 2 and head.shape[:1] != table.shape[:1]:
        raise CheckpointError(
            f"{where} has a head of {len(head)} outputs for a vocabulary of {len(table)}: a classifier is not opened; "
            "give the language model that it was made of"
        )
    if not any(name.endswith(".bias") for name in tensors):
        raise CheckpointError(
            f"{where} has no biases, but no config says that it should have none: "
            'put a config.json with n_embd, n_head and "bias": false beside it'
        )


def _with_tokenizer(model: GPT, tokenizer: Tokenizer, where: Path, progress: Progress) -> GPT:
    """The same model. Its origin gets the reason if its tokenizer is not GPT-2's. `progress` gets other remarks."""
    model.origin = replace(model.origin, other_tokenizer=model.origin.other_tokenizer or tokenizer.other)
    text = remark(tokenizer, model.config.vocab_size)
    if text and model.origin.other_tokenizer is None:
        progress(Note(f"{where}: {text}"))
    return model
