"""Checkpoint files, read without trust.

A file is mapped into memory, so weights are read from disk when they are used. No code in a file is run: it is
`.safetensors`, `.gguf`, or `.pt` read by torch's `weights_only` unpickler.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from gpt2cli.checkpoints import gguf_format, pt_format
from gpt2cli.checkpoints.limits import MAX_DIMENSIONS, MAX_HEADER, MAX_SHARDS, MAX_TENSORS
from gpt2cli.errors import CheckpointError, ResourceError
from gpt2cli.untrusted import is_encodable, is_file, missing, parse_json, shown, shown_reason


@dataclass(frozen=True)
class Contents:
    """The contents of a checkpoint file: tensors by name, and the other facts in it."""

    tensors: dict[str, Tensor]
    extra: dict[str, Any]


def read_checkpoint(path: Path) -> Contents:
    """Open a `.safetensors`, `.pt` or `.gguf` file by memory map, whatever its name ends in.

    Raises CheckpointError for a file that is damaged, is something else, or holds a pickle that runs code.
    """
    check_regular(path)
    with path.open("rb") as file:
        start = file.read(512)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if start.startswith(pt_format.MAGIC):
        return Contents(*pt_format.read_pt(path))
    if start.startswith(pt_format.OLD_MAGIC):
        return Contents(*pt_format.read_old_pt(path))
    if start.startswith(gguf_format.MAGIC):
        return Contents(*gguf_format.read_gguf(path))
    if start[8:9] == b"{":
        return read_safetensors(path)
    raise CheckpointError(
        f"{path} is not a checkpoint; looks like {looks_like(start)}: give a .pt, .safetensors or .gguf file"
    )


def read_safetensors(path: Path) -> Contents:
    """Open one `.safetensors` file by memory map. Raises CheckpointError if it is not one or not whole."""
    check_regular(path)
    metadata = _check_safetensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            return Contents({name: file.get_tensor(name) for name in file.keys()}, metadata)  # noqa: SIM118
    except MemoryError:
        raise
    except Exception as error:  # safetensors raises errors of Rust, of torch, and SafetensorError
        raise CheckpointError(f"{path} is damaged ({shown_reason(error)}): fetch it again") from None


def read_shards(index: Path) -> Contents:
    """The contents of all files that `model.safetensors.index.json` names; they are in the same directory.

    Raises CheckpointError for an index of other directories' files or of too many files, and for files that hold the
    same tensor.
    """
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or any(Path(str(name)).name != name for name in shards.values()):
        raise CheckpointError(f"{index}: weight_map must name files in the same directory: fetch it again")
    names = sorted(set(shards.values()))
    if len(names) > MAX_SHARDS:
        raise CheckpointError(f"{index}: weight_map names {len(names)} files, more than {MAX_SHARDS}: fetch it again")
    tensors: dict[str, Tensor] = {}
    extra: dict[str, Any] = {}
    for name in names:
        if not is_file(index.parent / name):
            raise CheckpointError(f"{index.parent}: {shown(name)} is missing: fetch the model again")
        part = read_safetensors(index.parent / name)
        if not tensors.keys().isdisjoint(part.tensors):
            raise CheckpointError(f"{index.parent / name} holds tensors that another file holds too: fetch it again")
        tensors |= part.tensors
        extra |= part.extra
        if len(tensors) > MAX_TENSORS:
            raise CheckpointError(f"{index} leads to {len(tensors)} tensors, more than {MAX_TENSORS}: it is no GPT-2")
    return Contents(tensors, extra)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises CheckpointError for anything else."""
    check_regular(path)
    if path.stat().st_size > MAX_HEADER:
        raise CheckpointError(f"{path} is larger than {MAX_HEADER} bytes: fetch it again")
    try:
        value = parse_json(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({shown_reason(error)}): fetch it again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object: fetch it again")
    return value


def check_regular(path: Path) -> None:
    """Raise CheckpointError unless a path is an ordinary file, ResourceError if this user may not read it."""
    if not is_file(path):
        raise CheckpointError(f"{path} is {missing(path)}: check the name")
    if not os.access(path, os.R_OK):
        raise ResourceError(f"{path} may not be read: change its permissions")
    if not is_encodable(str(path)):  # torch and safetensors cannot open it
        raise CheckpointError(f"{path} has a name that is not UTF-8: rename it")


def _check_safetensors(path: Path) -> dict[str, str]:
    """Check the header and return its metadata: the library's errors are vague, and it accepts duplicate names."""
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
        metadata, end = _parse_header(raw)
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        reason = shown_reason(error)
        raise CheckpointError(f"{path} is damaged: bad safetensors header ({reason}): fetch it again") from None
    if size != 8 + length + end:
        state = "truncated" if size < 8 + length + end else "followed by other bytes"
        raise CheckpointError(f"{path} is {state}: {8 + length + end} bytes expected, {size} found: fetch it again")
    return metadata


def _parse_header(raw: bytes) -> tuple[dict[str, str], int]:
    """The metadata, and the end of the last tensor's data. Raises ValueError, TypeError or LookupError."""
    header = json.loads(raw, object_pairs_hook=_no_duplicates)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("metadata that is no table of texts")
    if len(header) > MAX_TENSORS:
        raise ValueError(f"{len(header)} tensors")
    end = 0
    for entry in header.values():
        shape, (_, last) = entry["shape"], entry["data_offsets"]
        if len(shape) > MAX_DIMENSIONS or any(type(number) is not int for number in (*shape, last)):
            raise ValueError("a tensor of impossible shape or place")
        end = max(end, last)
    return metadata, end


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name that comes twice")
    return members


def looks_like(start: bytes) -> str:
    """A guess at the kind of a file with these first bytes, for an error message."""
    if not start:
        return "an empty file"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer (run `git lfs pull`)"
    if start.lstrip()[:1] == b"<":
        return "HTML"
    if start.startswith(pt_format.MAGIC):
        return "a zip or PyTorch file"
    if start.startswith(b"\x80"):
        return "a pickle"
    if start.startswith(gguf_format.MAGIC):
        return "GGUF"
    if start.startswith(b"\x1f\x8b"):
        return "gzip"
    return "text" if start.isascii() and b"\0" not in start else "unknown binary data"
