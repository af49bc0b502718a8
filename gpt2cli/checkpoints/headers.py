"""The beginnings of checkpoint files, and the JSON files beside them: checked without torch, before any tensor is read.

The first bytes of a file tell its kind. Its name does not, except for `.safetensors`.
"""

import json
import math
import os
from dataclasses import dataclass
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

TYPES = {
    **{"F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2)},
    **{"F8_E4M3": ("float8_e4m3fn", 1), "F8_E5M2": ("float8_e5m2", 1), "C64": ("complex64", 8), "BOOL": ("bool", 1)},
    **{"I64": ("int64", 8), "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1)},
    **{"U64": ("uint64", 8), "U32": ("uint32", 4), "U16": ("uint16", 2), "U8": ("uint8", 1)},
}
"""The types in safetensors, with their names in NumPy and ml_dtypes, and their sizes in bytes."""

Kind = Literal["safetensors", "pt", "old pt", "gguf"]


@dataclass(frozen=True)
class Described:
    """A tensor as the header of a safetensors file describes it. `start` and `end` are bytes of the file."""

    type: str
    shape: tuple[int, ...]
    start: int
    end: int


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


def check_safetensors(path: Path) -> tuple[dict[str, Described], dict[str, str]]:
    """Check the header of a `.safetensors` file. Returns its tensors by name, and its metadata.

    Raises CheckpointError for a header that is damaged, or does not fit the size of the file. The tensors then follow
    each other without overlap up to the end of the file.
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
        tensors, metadata = _parse_header(raw)
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        reason = shown_reason(error)
        raise CheckpointError(f"{path} is damaged: bad safetensors header ({reason}): fetch it again") from None
    end = max((tensor.end for tensor in tensors.values()), default=8 + length)
    if size != end:
        state = "truncated" if size < end else "followed by other bytes"
        raise CheckpointError(f"{path} is {state}: {end} bytes expected, {size} found: fetch it again")
    return tensors, metadata


def _parse_header(raw: bytes) -> tuple[dict[str, Described], dict[str, str]]:
    """The tensors and the metadata. Raises ValueError, TypeError or LookupError."""
    header = json.loads(raw, object_pairs_hook=_no_duplicates)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("metadata that is no table of texts")
    if not all(map(is_encodable, (*header, *metadata, *metadata.values()))):
        raise ValueError("a text that is not Unicode")
    if len(header) > MAX_TENSORS:
        raise ValueError(f"{len(header)} tensors")
    tensors = {name: _described(entry, 8 + len(raw)) for name, entry in header.items()}
    end = 8 + len(raw)
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != end:
            raise ValueError("tensors that overlap, or bytes between them")
        end = tensor.end
    return tensors, metadata


def _described(entry: dict[str, Any], data: int) -> Described:
    """One entry of the header. The data of the tensors begin at byte `data` of the file."""
    shape, (start, end) = entry["shape"], entry["data_offsets"]
    if len(shape) > MAX_DIMENSIONS or any(type(number) is not int or number < 0 for number in (*shape, start, end)):
        raise ValueError("a tensor of impossible shape or place")
    _, size = TYPES[entry["dtype"]]
    if end - start != math.prod(shape) * size:
        raise ValueError("a tensor whose shape does not fit its size")
    return Described(entry["dtype"], tuple(shape), data + start, data + end)


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
