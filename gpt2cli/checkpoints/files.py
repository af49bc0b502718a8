"""Checkpoint files, read without trust.

A file is mapped into memory, so that weights are paged in as they are used, and nothing runs what it says: it is
`.safetensors`, `.gguf`, or `.pt` read by torch's `weights_only` unpickler.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gpt2cli.checkpoints.gguf_format import MAGIC, read_gguf
from gpt2cli.checkpoints.state_dicts import find_state_dict
from gpt2cli.errors import CheckpointError

MAX_HEADER = 16 * 2**20
"""Bytes of safetensors header, or of other JSON, that are believed. The 1.5B model's takes 60 thousand."""


OLD_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of what torch.save wrote before version 1.6: a pickle of a number, then others."""


@dataclass(frozen=True)
class Contents:
    """What a checkpoint file holds: tensors by name, and whatever its author wrote beside them."""

    tensors: dict[str, Tensor]
    extra: dict[str, Any]


def read_checkpoint(path: Path) -> Contents:
    """Open a `.safetensors`, `.pt` or `.gguf` file by memory map, whatever its name ends in.

    Raises CheckpointError for a file that is damaged, is something else, or holds a pickle that runs code.
    """
    with path.open("rb") as file:
        start = file.read(512)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if start.startswith(b"PK\x03\x04"):
        return _read_pt(path)
    if start.startswith(OLD_MAGIC):
        return _read_pt(path, mmap=False)
    if start.startswith(MAGIC):
        return Contents(*read_gguf(path))
    if start[8:9] == b"{":
        return read_safetensors(path)
    raise CheckpointError(
        f"{path} is not a checkpoint; looks like {looks_like(start)}: give a .pt, .safetensors or .gguf file"
    )


def read_safetensors(path: Path) -> Contents:
    """Open one `.safetensors` file by memory map. Raises CheckpointError if it is not one or not whole."""
    metadata = _check_safetensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            return Contents({name: file.get_tensor(name) for name in file.keys()}, metadata)  # noqa: SIM118
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): fetch it again") from None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises CheckpointError for anything else."""
    if path.stat().st_size > MAX_HEADER:
        raise CheckpointError(f"{path} is too large for what it should be: fetch it again")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}): fetch it again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object: fetch it again")
    return value


def _check_safetensors(path: Path) -> dict[str, Any]:
    """Check the header by hand: the reader says little about what is wrong, and lets duplicate names pass."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(512)
        length = int.from_bytes(start[:8], "little")
        if len(start) < 10 or start[8:9] != b"{":
            raise CheckpointError(f"{path} is not safetensors; looks like {looks_like(start)}: fetch it again")
        if length > min(MAX_HEADER, size):
            raise CheckpointError(f"{path} is damaged: a header of {length} bytes in a file of {size}: fetch it again")
        file.seek(8)
        raw = file.read(length)
    try:
        header: dict[str, Any] = json.loads(raw, object_pairs_hook=_no_duplicates)
        metadata = header.pop("__metadata__", {})
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: bad safetensors header ({error}): fetch it again") from None
    if size != 8 + length + end:
        state = "truncated" if size < 8 + length + end else "followed by other bytes"
        raise CheckpointError(f"{path} is {state}: {8 + length + end} bytes expected, {size} found: fetch it again")
    return metadata if isinstance(metadata, dict) else {}


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name that comes twice")
    return members


def _read_pt(path: Path, mmap: bool = True) -> Contents:
    """Open a file of torch.save: a bare state dict, or a dict that holds one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own plans for the kinds of tensors that it finds
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch raises many kinds for a damaged zip
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise CheckpointError(
                f"{path} holds a pickle that would run code, refused: save its state dict alone"
            ) from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is damaged ({reason}): copy or save it again") from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}, not a state dict: save model.state_dict()")
    try:
        return Contents(*find_state_dict(loaded))
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from None


def looks_like(start: bytes) -> str:
    """A guess, in a word or two, at what a file with these first bytes is."""
    if not start:
        return "an empty file"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer (run `git lfs pull`)"
    if start.lstrip()[:1] == b"<":
        return "HTML"
    if start.startswith(b"PK\x03\x04"):
        return "a zip or PyTorch file"
    if start.startswith(b"\x80"):
        return "a pickle"
    if start.startswith(MAGIC):
        return "GGUF"
    if start.startswith(b"\x1f\x8b"):
        return "gzip"
    return "text" if start.isascii() and b"\0" not in start else "unknown binary data"
