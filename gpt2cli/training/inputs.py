"""The model that a run starts from, and its data."""

from dataclasses import replace

import torch
from torch import nn

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.config import VOCAB_SIZE, GPTConfig
from gpt2cli.data.open_data import load_data, prepared_alpaca
from gpt2cli.data.source import check_data, fetch_data, is_remote
from gpt2cli.data.splits import Splits
from gpt2cli.errors import CheckpointError, NetworkError, UsageError
from gpt2cli.model.device_choice import pick_device
from gpt2cli.model.gpt import GPT
from gpt2cli.model.lora import add_lora
from gpt2cli.progress import Note, Progress, ignore
from gpt2cli.published import DEFAULT_MODEL, PUBLISHED
from gpt2cli.training.settings import Settings


def load_inputs(
    settings: Settings, device: str, offline: bool, progress: Progress, *, only_shape: bool = False
) -> tuple[GPT, Splits]:
    """Load the model and the data, and check that they fit together.

    With `only_shape`, the model's parameters are on the meta device, and no weights are read or downloaded. Data that
    is not on this machine is downloaded also then.
    Raises UsageError, DataError, CheckpointError, ResourceError or NetworkError.
    """
    data = settings.data
    if data is not None:  # wrong data is reported before a model is downloaded
        check_data(data)
    model = shape_only(settings, progress) if only_shape else load_model(settings, device, offline, progress)
    path = prepared_alpaca(offline, progress) if data is None else fetch_data(data, offline, progress, settings.columns)
    window, template = model.config.block_size, settings.prompt_template
    splits = load_data(
        path,
        settings.train,
        settings.records,
        window,
        settings.skip_bad,
        template=template,
        columns=settings.columns,
        source=data if data and is_remote(data) else None,
    )
    if settings.template is not None and splits.template is None:
        raise UsageError("--template is for instructions, and plain text has none: leave it out")
    _check_vocabulary(model, splits)
    if settings.train.patience and (settings.train.eval_every == 0 or not len(splits.val)):
        why = "--eval-every 0 makes none" if settings.train.eval_every == 0 else "no data is held out for them"
        raise UsageError(f"--patience needs evaluations, and {why}: leave one of them out")
    return model, splits


def load_model(settings: Settings, device: str, offline: bool = False, progress: Progress = ignore) -> GPT:
    """The model in fp32, ready to be trained; with an adapter if the settings have one."""
    if settings.from_scratch:
        torch.manual_seed(settings.train.seed)
        model = GPT(settings.from_scratch).to(pick_device(device))
    else:
        model = load_plain(
            settings.model, ckpt=settings.ckpt, device=device, offline=offline, progress=progress, for_text=True
        )
    set_dropout(model, settings.train.dropout)
    if settings.lora:
        torch.manual_seed(settings.train.seed)
        add_lora(model, settings.lora)
    for parameter in model.parameters():  # copies: the loaded tensors may be memory-mapped from the file
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    return model


def shape_only(settings: Settings, progress: Progress = ignore) -> GPT:
    """As `load_model`, on the meta device. It reads the header of a file at most, and downloads nothing.

    Raises UsageError for a model that is not on disk, except a published one, whose shape is known.
    """
    shape = settings.from_scratch or _shape_of(settings.model, settings.ckpt, progress)
    with torch.device("meta"):
        model = GPT(replace(shape, dropout=settings.train.dropout))
        if settings.lora:
            add_lora(model, settings.lora)
    return model


def _shape_of(model: str | None, ckpt: str | None, progress: Progress) -> GPTConfig:
    name = DEFAULT_MODEL if model is None else model
    try:
        return ModelSpec(model, ckpt, "cpu", offline=True).shape(progress, for_text=True)
    except NetworkError:
        if ckpt is None and (published := PUBLISHED.get(name)):
            size = f"{published.download_bytes / 1e9:.2g} GB"
            progress(Note(f"{name} is not on disk: the run would first download {size}"))
            return published.config
        fetch = f"fetch it first: gpt2 download-weights {name}"
        raise UsageError(f"--dry-run downloads no weights, and {ckpt or name} is not on disk: {fetch}") from None


def set_dropout(model: GPT, dropout: float) -> None:
    """Set the probability of every dropout of a model."""
    model.config = replace(model.config, dropout=dropout)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = dropout  # type: ignore[assignment]


def _check_vocabulary(model: GPT, splits: Splits) -> None:
    """Raise CheckpointError if the data has tokens that the model does not have."""
    known = model.config.vocab_size
    if known >= VOCAB_SIZE:
        return
    parts = [part.tokens for part in (splits.train, splits.val) if part.n_tokens]
    largest = max((int(tokens.int().max()) for tokens in parts), default=0)
    if largest >= known:
        raise CheckpointError(
            f"the data has token {largest}, and the model knows {known} tokens: it was made for another tokenizer"
        )
