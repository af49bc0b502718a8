"""Checkpoint files, read without trust.

A file is mapped into memory, so weights are read from disk when they are used. No code in a file is run: it is
`.safetensors`, `.gguf`, or `.pt` read by torch's `weights_only` unpickler.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # gives NumPy the types of TYPES that it lacks
import numpy as np

from gpt2cli.checkpoints import gguf_format
from gpt2cli.checkpoints.headers import TYPES, check_regular, check_safetensors, kind_of, read_json
from gpt2cli.checkpoints.hub_layout import check_weights
from gpt2cli.checkpoints.lazy_arrays import LazyArray, lazy
from gpt2cli.checkpoints.limits import MAX_SHARDS, MAX_TENSORS
from gpt2cli.checkpoints.mapped_files import array_in, map_file
from gpt2cli.errors import CheckpointError
from gpt2cli.hub.names import INDEX, WEIGHTS
from gpt2cli.untrusted import is_file, shown, shown_reason


@dataclass(frozen=True)
class Contents:
    """The contents of a checkpoint file: tensors by name, and the other facts in it."""

    tensors: dict[str, LazyArray]
    extra: dict[str, Any]


def read_checkpoint(path: Path) -> Contents:
    """Open a `.safetensors`, `.pt` or `.gguf` file by memory map, whatever its name ends in.

    Only a `.pt` file needs torch. Raises CheckpointError for a file that is damaged, is something else, or holds a
    pickle that runs code.
    """
    kind = kind_of(path)
    if kind == "safetensors":
        return read_safetensors(path)
    if kind == "gguf":
        return Contents(*gguf_format.read_gguf(path))
    from gpt2cli.checkpoints import pt_format  # imports torch

    tensors, extra = pt_format.read_pt(path) if kind == "pt" else pt_format.read_old_pt(path)
    return Contents({name: lazy(array) for name, array in tensors.items()}, extra)


def read_safetensors(path: Path) -> Contents:
    """Open one `.safetensors` file by memory map. Raises CheckpointError if it is not one or not whole."""
    check_regular(path)
    described, metadata = check_safetensors(path)
    content, tensors = map_file(path), {}
    for name, tensor in described.items():
        dtype = np.dtype(TYPES[tensor.type][0])
        try:
            tensors[name] = lazy(array_in(content, tensor.start, tensor.shape, dtype))
        except (TypeError, ValueError) as error:  # a dimension too large for NumPy, or the file was cut meanwhile
            raise CheckpointError(f"{path} is damaged ({shown_reason(error)}): fetch it again") from None
    return Contents(tensors, metadata)


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
    tensors: dict[str, LazyArray] = {}
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


def read_weights(directory: Path) -> Contents:
    """The tensors of a directory in the Hub's layout, in one file or in shards, and the facts in their headers."""
    check_weights(directory)
    whole = directory / WEIGHTS
    return read_safetensors(whole) if is_file(whole) else read_shards(directory / INDEX)
