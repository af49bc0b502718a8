"""The beginnings of checkpoint files, and the JSON files beside them: checked without torch, before any tensor is read.

The first bytes of a file tell its kind. Its name does not, except for `.safetensors`.
"""

import json
import os
from pathlib import Path
from typing import Any, Literal

from gpt2cli.checkpoints.limits import MAX_DIMENSIONS, MAX_HEADER, MAX_TENSORS
from gpt2cli.errors import CheckpointError, ResourceError
from gpt2cli.suggestions import did_you_mean_file
from gpt2cli.untrusted import is_encodable, is_file, missing, parse_json, shown_reason

PT_MAGIC = b"PK\x03\x04"
OLD_PT_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of what torch.save wrote before version 1.6: a pickle of a number."""
GGUF_MAGIC = b"GGUF"
_START = 512
"""The first bytes of a file that are read to recognize it."""

Kind = Literal["safetensors", "pt", "old pt", "gguf"]


def kind_of(path: Path) -> Kind:
    """The kind of a checkpoint file. Raises CheckpointError for any other file, and what `check_regular` raises."""
    check_regular(path)
    with path.open("rb") as file:
        start = file.read(_START)
    if path.suffix == ".safetensors":
        return "safetensors"
    if start.startswith(PT_MAGIC):
        return "pt"
    if start.startswith(OLD_PT_MAGIC):
        return "old pt"
    if start.startswith(GGUF_MAGIC):
        return "gguf"
    if start[8:9] == b"{":
        return "safetensors"
    raise CheckpointError(
        f"{path} is not a checkpoint; looks like {looks_like(start)}: give a .pt, .safetensors or .gguf file"
    )


def check_header(path: Path) -> None:
    """Raise CheckpointError for a file that is no checkpoint, or a `.safetensors` file that is not whole."""
    if kind_of(path) == "safetensors":
        check_safetensors(path)


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
        advice = did_you_mean_file(path) or "check the name"
        raise CheckpointError(f"{path} is {missing(path)}: {advice}")
    if not os.access(path, os.R_OK):
        raise ResourceError(f"{path} may not be read: change its permissions")
    if not is_encodable(str(path)):  # torch and safetensors cannot open it
        raise CheckpointError(f"{path} has a name that is not UTF-8: rename it")


def check_safetensors(path: Path) -> dict[str, str]:
    """Check the header of a `.safetensors` file, and return its metadata. Raises CheckpointError.

    The library's errors are vague, and it accepts duplicate names.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_START)
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
    if start.startswith(PT_MAGIC):
        return "a zip or PyTorch file"
    if start.startswith(b"\x80"):
        return "a pickle"
    if start.startswith(GGUF_MAGIC):
        return "GGUF"
    if start.startswith(b"\x1f\x8b"):
        return "gzip"
    return "text" if start.isascii() and b"\0" not in start else "unknown binary data"
