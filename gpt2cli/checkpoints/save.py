"""From a model to one file, `.pt` or `.safetensors`, that `load(ckpt=...)` and any PyTorch opens."""

import dataclasses
import errno
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from gpt2cli import outputs
from gpt2cli.atomic import replacing
from gpt2cli.checkpoints.rounding import is_finite
from gpt2cli.config import GPTConfig
from gpt2cli.errors import DivergedError, ResourceError
from gpt2cli.model.gpt import GPT
from gpt2cli.model.lora import merged_state

FORMAT, VERSION = "gpt2cli", 1
SUFFIXES = (".pt", ".safetensors")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers for no more room: on the disk, for this user, or in one file."""


def save_checkpoint(
    model: GPT, path: Path, *, template: dict[str, str] | None = None, provenance: dict[str, Any] | None = None
) -> None:
    """Write a model to `path`. The suffix is `.pt` (a plain dict) or `.safetensors` (the facts are in its header).

    The file holds the format and its version, the config, the weights in the model's own type with adapters merged,
    the prompt template that the model was trained with, and its provenance (any JSON value). The model is not
    changed. An existing file stays until the new one is complete. Raises UsageError for another suffix,
    DivergedError for weights that are not finite, and ResourceError if the file cannot be written.
    """
    save_state(merged_state(model), model.config, path, template=template, provenance=provenance)


def save_state(
    state: dict[str, Tensor],
    config: GPTConfig,
    path: Path,
    *,
    template: dict[str, str] | None = None,
    provenance: dict[str, Any] | None = None,
) -> None:
    """As `save_checkpoint`, for the tensors of a model of this shape, which may be stored small: see `compact.py`."""
    check_target(path)
    check_finite(state, path)
    facts: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "config": dataclasses.asdict(config),
        "template": template,
        "provenance": provenance or {},
    }
    facts = json.loads(json.dumps(facts))  # plain types only: the file must open with weights_only
    state = unshare_storage(state)
    with writing(path) as temporary:
        if path.suffix == ".safetensors":
            save_file(state, temporary, as_metadata(facts))
        else:
            with temporary.open("wb") as file:  # by its name, torch would put that into the file
                torch.save(facts | {"model": state}, file)


def check_target(path: Path) -> None:
    """Raise UsageError or ResourceError if no checkpoint can be written to this path: before hours of training."""
    outputs.check_suffix(path, SUFFIXES, "a checkpoint")
    outputs.check_unicode(path)
    outputs.check_file(path)


def check_finite(state: dict[str, Tensor], path: Path) -> None:
    """Raise DivergedError, naming the tensor, if a value is not finite: no loader would accept it."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not is_finite(tensor):
            raise DivergedError(
                f"{name} has values that are not finite: {path} is not written; lower the learning rate"
            )


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """As `atomic.replacing`, with a ResourceError if the disk is full, read-only or missing.

    Inside, only write: see `disk_errors`.
    """
    with disk_errors(path), replacing(path) as temporary:
        yield temporary


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an error in writing `path` into a ResourceError that names it.

    Only write inside it: torch and safetensors have no exception for the disk, so every error counts as one.
    """
    outside = sys.exc_info()[1]
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        first = _first_of(error, outside)
        if not isinstance(first, Exception):
            raise first from None  # Ctrl-C, which torch's writer turned into a complaint about its file
        reason = (first.strerror if isinstance(first, OSError) else None) or str(first).partition("\n")[0]
        full = not isinstance(first, OSError) or first.errno in FULL
        advice = "make room, or choose another place" if full else "choose another place"
        raise ResourceError(f"cannot write {path} ({reason}): {advice}") from None


def unshare_storage(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same values in main memory, each contiguous and in a separate storage. Copies are made only if needed.

    Without this, torch would write the whole storage of a view, and safetensors would refuse a shared storage.
    """
    own, seen = {}, set()
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.nbytes() != tensor.nbytes or storage.data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        own[name] = tensor
    return own


def as_metadata(facts: dict[str, Any]) -> dict[str, str]:
    """Metadata as the header of a safetensors file takes them: texts as they are, all else as JSON, None left out."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in facts.items()
        if value is not None
    }


def _first_of(error: BaseException, outside: BaseException | None) -> BaseException:
    """The first error in a chain: torch's writer hides it behind one about the position in the file.

    `outside` was handled before, such as a Ctrl-C after which the caller saves. It does not belong to the chain.
    """
    while error.__context__ is not None and error.__context__ is not outside:
        error = error.__context__
    return error
