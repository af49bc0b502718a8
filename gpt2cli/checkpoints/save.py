"""From a model to one file, `.pt` or `.safetensors`, that `load(ckpt=...)` and any PyTorch opens."""

import dataclasses
import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from gpt2cli.atomic import replacing
from gpt2cli.config import GPTConfig
from gpt2cli.errors import DivergedError, ResourceError
from gpt2cli.model.gpt import GPT
from gpt2cli.model.lora import merged_state
from gpt2cli.outputs import check_checkpoint

FORMAT, VERSION = "gpt2cli", 1
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full disk, of a user's quota, and of the largest size of a file."""


def save_checkpoint(
    model: GPT, path: Path, *, template: dict[str, str] | None = None, provenance: dict[str, Any] | None = None
) -> None:
    """Write a model to `path`. The suffix is `.pt` (a plain dict) or `.safetensors` (the facts are in its header).

    The file holds the format and its version, the config, the weights in the model's type with adapters merged, the
    prompt template of the training, and the provenance (any JSON value). The model is not changed. An existing file
    stays until the new one is complete. Raises UsageError for another suffix, DivergedError for weights that are not
    finite, and ResourceError if the file cannot be written.
    """
    save_tensors(merged_state(model), model.config, path, template=template, provenance=provenance)


def save_tensors(
    state: dict[str, Tensor],
    config: GPTConfig,
    path: Path,
    *,
    template: dict[str, str] | None = None,
    provenance: dict[str, Any] | None = None,
) -> None:
    """As `save_checkpoint`, for the tensors of a model of this shape, which may be quantized (see `quantized_file`)."""
    check_checkpoint(path)
    check_finite(state, path)
    facts: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "config": dataclasses.asdict(config),
        "template": template,
        "provenance": provenance or {},
    }
    facts = json.loads(json.dumps(facts))  # plain types only: the file must open with weights_only
    with writing(path) as temporary:
        if path.suffix == ".safetensors":
            write_tensors(temporary, state, facts)
        else:
            write_pt(temporary, facts | {"model": unshare_storage(state)})


def write_tensors(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write a `.safetensors` file. Its header holds the facts: texts unchanged, all else as JSON, None left out.

    Raises OSError if the disk is full.
    """
    metadata = {
        name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items() if fact is not None
    }
    try:
        save_file(unshare_storage(tensors), path, metadata)
    except SafetensorError as error:  # the only kind that the library raises, also for the disk
        found = re.search(r"([^:]+) \(os error (\d+)\)", str(error))
        reason, code = (found[1].strip(), int(found[2])) if found else (os.strerror(errno.ENOSPC), errno.ENOSPC)
        # on Windows, the fourth argument sets `errno`, as the numbers of its errors are not errno's
        raise OSError(code, reason, None, code if found else None) from None


class _RecordingFile:
    """A file for torch.save that keeps the first error of a write: torch raises another one, about the position."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.flush = file.flush
        self.error: BaseException | None = None  # the first one, which can also be a Ctrl-C

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except BaseException as error:
            self.error = self.error or error
            raise


def write_pt(path: Path, content: dict[str, Any]) -> None:
    """Write a `.pt` file. Raises OSError if the disk is full."""
    with path.open("wb") as file:  # torch would put a path's name into the file
        recording = _RecordingFile(file)
        try:
            torch.save(content, recording)  # type: ignore[arg-type]  # it needs only write and flush
        except BaseException as error:
            raise recording.error or error from None


def check_finite(state: dict[str, Tensor], path: Path) -> None:
    """Raise DivergedError, naming the tensor, if a value is not finite: no loader would accept it."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not _is_finite(tensor):
            raise DivergedError(
                f"{name} has values that are not finite: {path} is not written; lower the learning rate"
            )


def _is_finite(tensor: Tensor) -> bool:
    # the sum needs one pass and no copy, and is finite for ordinary tensors; as it can overflow, the values of others
    # are checked in fp32: a model is made in fp32, also of fp64 weights
    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.float().isfinite().all())


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """As `atomic.replacing`, with a ResourceError if the disk is full, read-only or missing."""
    with disk_errors(path), replacing(path) as temporary:
        yield temporary


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an error in writing `path` into a ResourceError that names it."""
    try:
        yield
    except OSError as error:
        advice = "make room, or choose another place" if error.errno in FULL else "choose another place"
        raise ResourceError(f"cannot write {path} ({error.strerror or error}): {advice}") from None


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
