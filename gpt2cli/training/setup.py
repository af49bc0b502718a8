"""From settings to a job that `train()` can run."""

import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.config import VOCAB_SIZE
from gpt2cli.data.open_data import data_path, prepared_alpaca
from gpt2cli.data.splits import Splits
from gpt2cli.errors import CheckpointError
from gpt2cli.model.device import TOKENS_PER_PASS, fast_training_dtype, pick_device
from gpt2cli.model.gpt import GPT
from gpt2cli.model.lora import LoRALinear, add_lora
from gpt2cli.progress import Progress, ignore
from gpt2cli.training.bf16_linear import make_lean
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.job import Job
from gpt2cli.training.settings import Settings
from gpt2cli.training.state import Resumable

SAMPLE_INSTRUCTIONS = (
    "Give three tips for staying healthy.",
    "What is the capital of France?",
    "Rewrite this sentence in the past tense: The cat sits on the mat.",
)


def load_model(settings: Settings, device: str, offline: bool = False, progress: Progress = ignore) -> GPT:
    """The model that a run begins from, in fp32 and ready to be trained; with an adapter if it is to have one."""
    if settings.from_scratch:
        torch.manual_seed(settings.train.seed)
        model = GPT(settings.from_scratch).to(pick_device(device))
    else:
        at: dict[str, Any] = {"device": device, "offline": offline, "progress": progress}
        model = load_plain(settings.model, ckpt=settings.ckpt, for_text=True, **at)
    set_dropout(model, settings.train.dropout)
    if settings.lora:
        torch.manual_seed(settings.train.seed)
        add_lora(model, settings.lora)
    for parameter in model.parameters():  # memory of its own, in place of a map of the file
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    return model


def compute_dtype(settings: Settings, device: torch.device) -> torch.dtype | None:
    """What autocast computes in; None: in the weights' own fp32."""
    chosen = {"fp32": None, "bf16": torch.bfloat16}
    return chosen.get(settings.precision, fast_training_dtype(device))


def set_dropout(model: GPT, dropout: float) -> None:
    """Give every dropout of a model this probability."""
    model.config = replace(model.config, dropout=dropout)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = dropout  # type: ignore[assignment]


def find_data(settings: Settings, offline: bool = False, progress: Progress = ignore) -> Path:
    """Where a run's data is: as the settings say, or Alpaca, fetched and prepared if that has not been done yet."""
    return prepared_alpaca(offline, progress) if settings.data is None else data_path(settings.data)


def check_vocabulary(model: GPT, splits: Splits) -> None:
    """Raise CheckpointError if the data has tokens that the model does not have: it is of another tokenizer."""
    known = model.config.vocab_size
    if known >= VOCAB_SIZE:
        return
    parts = [part.tokens for part in (splits.train, splits.val) if part.n_tokens]
    largest = max((int(tokens.int().max()) for tokens in parts), default=0)
    if largest >= known:
        raise CheckpointError(
            f"the data has token {largest}, and the model knows {known} tokens: it was made for another tokenizer"
        )


def make_job(
    settings: Settings,
    model: GPT,
    splits: Splits,
    ranks: Ranks,
    checkpoints: Path | None,
    resume: Resumable | None,
    should_stop: Callable[[], bool],
    compiled: bool = False,
) -> Job:
    """Put a run together; a resumed one must have the same settings, shape and data, which `train` checks."""
    device = model.wte.weight.device
    autocast = compute_dtype(settings, device)
    shape = {name: value for name, value in asdict(model.config).items() if name != "dropout"}
    identity = settings.identity() | shape | {"data": splits.train.fingerprint(), "world_size": ranks.world_size}
    if settings.lora:
        identity["base"] = checksum(p for p in model.parameters() if not p.requires_grad)
    if autocast:  # not before: the base is the same one on a device that computes in another type
        hold_frozen(model, autocast)
        if device.type == "cpu":
            make_lean(model, autocast)
    return Job(
        model,
        splits.train,
        splits.val if len(splits.val) else None,
        settings.train,
        ranks,
        autocast,
        TOKENS_PER_PASS[device.type],
        sample_prompts(settings, splits),
        identity,
        checkpoints,
        resume,
        should_stop,
        compiled,
        recompute=settings.grad_checkpointing,
        half_copy=autocast is not None and device.type == "cuda" and ranks.world_size == 1,
    )


def hold_frozen(model: GPT, dtype: torch.dtype) -> None:
    """Hold layers that have an adapter in this type: frozen, they would be cast to the same bits at every step."""
    for layer in model.h.modules():
        if isinstance(layer, LoRALinear):
            layer.to_dtype(dtype)


def checksum(tensors: Iterable[Tensor]) -> int:
    """A number that tells other values from these: CRC-32 of their bytes."""
    value = 0
    for tensor in tensors:
        value = zlib.crc32(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data, value)
    return value


def sample_prompts(settings: Settings, splits: Splits) -> list[tuple[str, str]]:
    """What is asked while training: instructions in the template, or plain beginnings for plain text."""
    if splits.template is None:
        return [(text, text) for text in settings.sample_prompts or ("Once upon a time",)]
    return [(text, splits.template.prompt(text)) for text in settings.sample_prompts or SAMPLE_INSTRUCTIONS]
