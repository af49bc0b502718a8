"""From a directory or a file to a stored model, or only to its shape."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from gpt2cli.checkpoints import adapters, configs, quantized_weights
from gpt2cli.checkpoints.dialects import to_ours
from gpt2cli.checkpoints.files import Contents, read_checkpoint, read_weights
from gpt2cli.checkpoints.hub_layout import check_hub_config, read_hub_config
from gpt2cli.checkpoints.lazy_arrays import LazyArray
from gpt2cli.checkpoints.metadata import Metadata, metadata_in, tokenizer_in
from gpt2cli.checkpoints.model_shape import check_fit, read_shape
from gpt2cli.checkpoints.places import check_file
from gpt2cli.checkpoints.stored_model import StoredModel, Weights
from gpt2cli.errors import CheckpointError
from gpt2cli.hub.tokenizer_files import Tokenizer, read_tokenizer, remark
from gpt2cli.model.origin import Origin
from gpt2cli.progress import Note, Progress, ignore
from gpt2cli.untrusted import is_file


def read_model(
    path: Path, progress: Progress = ignore, *, only_shape: bool = False, with_facts: bool = True
) -> StoredModel:
    """The model in a checkpoint file of any dialect, or in a directory of the Hub's layout.

    The names, types and shapes of all tensors are checked. `progress` gets notes about what was assumed or left out.
    With `only_shape`, the weights have no values, and the shape is that of a model whose head is the embedding, if a
    head of the embedding's shape is stored. The prompt template is read only `with_facts`.
    Raises UsageError or CheckpointError.
    """
    read = _read_file if is_file(path) else _read_directory
    model, contents = read(path, progress, only_shape)
    return _with_facts(model, metadata_in(contents.extra, path)) if with_facts else model


def add_adapter(model: StoredModel, adapter: adapters.Adapter, progress: Progress = ignore) -> StoredModel:
    """The model with an adapter merged into it: the weights that it changes are in fp32. Has the adapter's facts.

    Raises CheckpointError if the adapter was made for another base.
    """
    arrays = adapters.merge_adapter(model.weights.arrays, adapter)
    weights = Weights(arrays, model.weights.where)
    model = StoredModel(model.config, weights, replace(model.origin, precision="fp32"))
    model = _with_tokenizer(model, read_tokenizer(adapter.directory), adapter.directory, progress)
    return _with_facts(model, adapter.facts)


def _with_facts(model: StoredModel, facts: Metadata) -> StoredModel:
    """The same model, with the facts that conversations need in its origin."""
    origin = replace(
        model.origin,
        template=facts.template,
        is_plain_text=facts.is_plain_text,
        is_conversational=facts.is_conversational,
    )
    return replace(model, origin=origin)


def _read_directory(directory: Path, progress: Progress, only_shape: bool) -> tuple[StoredModel, Contents]:
    """The model of `config.json` and `model.safetensors`, which may be in shards."""
    config, contents = read_hub_config(directory), read_weights(directory)
    model = _make(contents, config, directory, progress, only_shape)
    return _with_tokenizer(model, read_tokenizer(directory), directory, progress), contents


def _read_file(path: Path, progress: Progress, only_shape: bool) -> tuple[StoredModel, Contents]:
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
    return _with_tokenizer(model, tokenizer, path, progress), contents


def _make(contents: Contents, config: dict[str, Any], where: Path, progress: Progress, only_shape: bool) -> StoredModel:
    """A model from a file's tensors, in any dialect, and its config. `where` names the file in messages."""

    def note(text: str) -> None:
        progress(Note(f"{where}: {text}"))

    tensors = quantized_weights.to_floats(contents.tensors, where)
    if only_shape:
        tensors = {name: tensor.without_values() for name, tensor in tensors.items()}
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
    check_fit(shape, tensors, where)
    return StoredModel(shape, Weights(tensors, where), Origin(precision=quantized_weights.precision(contents.tensors)))


def _check_whole(tensors: dict[str, LazyArray], where: Path) -> None:
    """Raise CheckpointError for a classifier, and for a model without biases whose config does not say so."""
    head, table = tensors.get("lm_head.weight"), tensors.get("wte.weight")
    if head is not None and table is not None and head.ndim == 2 and head.shape[:1] != table.shape[:1]:
        raise CheckpointError(
            f"{where} has a head of {head.shape[0]} outputs for a vocabulary of {table.shape[0]}: a classifier is not "
            "opened; give the language model that it was made of"
        )
    if not any(name.endswith(".bias") for name in tensors):
        raise CheckpointError(
            f"{where} has no biases, but no config says that it should have none: "
            'put a config.json with n_embd, n_head and "bias": false beside it'
        )


def _with_tokenizer(model: StoredModel, tokenizer: Tokenizer, where: Path, progress: Progress) -> StoredModel:
    """The same model. Its origin gets the reason if its tokenizer is not GPT-2's. `progress` gets other remarks."""
    origin = replace(model.origin, other_tokenizer=model.origin.other_tokenizer or tokenizer.other)
    text = remark(tokenizer, model.config.vocab_size)
    if text and origin.other_tokenizer is None:
        progress(Note(f"{where}: {text}"))
    return replace(model, origin=origin)
