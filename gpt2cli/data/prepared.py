"""A prepared dataset on disk: a directory with one file, so that it is there as a whole or not at all.

`data.safetensors` holds nine tensors, `train.tokens train.offsets train.loss_from val.tokens ...` as in `TokenDataset`,
and in its metadata, under `gpt2cli`, a JSON object: version, template, and whatever else `Splits.info` holds; under
`sha256` a digest of all that.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from gpt2cli import paths
from gpt2cli.atomic import replacing
from gpt2cli.checkpoints.files import read_safetensors
from gpt2cli.config import VOCAB_SIZE
from gpt2cli.data.dataset import TokenDataset
from gpt2cli.data.splits import Splits as Splits
from gpt2cli.errors import CheckpointError, DataError, ResourceError
from gpt2cli.prompts import PromptTemplate

FILE = "data.safetensors"
VERSION = 1
AGAIN = "prepare it again with `gpt2 prepare-alpaca --force`"
_DTYPES = {"tokens": torch.uint16, "offsets": torch.int64, "loss_from": torch.int32}


def default_directory(source: str) -> Path:
    """Where a dataset goes if nobody says: `alpaca-cleaned`, `alpaca-original`, or the name of the source's file."""
    name = f"alpaca-{source}" if source in ("cleaned", "original") else Path(urlsplit(source).path).stem
    return paths.datasets() / (re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "alpaca")


def is_prepared(directory: Path) -> bool:
    """Whether the directory holds a prepared dataset."""
    return (directory / FILE).is_file()


def fingerprint(splits: Splits) -> str:
    """sha256, in hex, of everything in the three splits."""
    return hashlib.sha256("".join(part.fingerprint() for part in splits.by_name().values()).encode()).hexdigest()


def write_prepared(splits: Splits, directory: Path) -> Path:
    """Write the dataset, replacing the one that is there; a crash leaves the old or the new. Returns the file.

    Raises ResourceError or OSError if it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}.{member}": getattr(part, member).contiguous()
        for name, part in splits.by_name().items()
        for member in _DTYPES
    }
    template = splits.template.to_dict() if splits.template else None
    described = {"version": VERSION, "template": template, **splits.info, "fingerprint": fingerprint(splits)}
    with replacing(directory / FILE) as temporary:
        text = json.dumps(described)
        try:
            save_file(tensors, temporary, metadata={"gpt2cli": text, "sha256": _digest(text, splits)})
        except SafetensorError as error:  # how its writer reports a full disk
            raise ResourceError(f"cannot write {directory / FILE} ({error}): free some space") from None
    return directory / FILE


def read_prepared(directory: Path) -> Splits:
    """Open a prepared dataset by memory map. `info` holds what was written, and its fingerprint.

    Raises DataError for a file that is damaged, of another version, or something else.
    """
    path = directory / FILE
    try:
        contents = read_safetensors(path)
        described: dict[str, Any] = json.loads(contents.extra["gpt2cli"])
        version, stored = described.pop("version"), described.pop("template")
        if version != VERSION:
            raise DataError("prepared by another version of gpt2cli")
        template = None if stored is None else PromptTemplate.from_dict(stored)
        train, val, test = (_part(contents.tensors, name) for name in ("train", "val", "test"))
        splits = Splits(train, val, test, template, described)
        if contents.extra["sha256"] != _digest(contents.extra["gpt2cli"], splits) or not len(splits.train):
            raise ValueError
    except CheckpointError as error:
        raise DataError(f"{str(error).removesuffix(': fetch it again')}: {AGAIN}") from None
    except DataError as error:
        raise DataError(f"{path}: {error}: {AGAIN}") from None
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise DataError(f"{path} is no prepared dataset, or is damaged: {AGAIN}") from None
    return splits


def _digest(description: str, splits: Splits) -> str:
    """sha256, in hex, of all that the file says."""
    return hashlib.sha256((description + fingerprint(splits)).encode()).hexdigest()


def _part(tensors: dict[str, Tensor], name: str) -> TokenDataset:
    """One of the three, checked so far that nothing in it leads outside. Raises KeyError or ValueError."""
    tokens, offsets, loss_from = members = [tensors[f"{name}.{member}"] for member in _DTYPES]
    kinds = all(
        tensor.dtype == dtype and tensor.ndim == 1 for tensor, dtype in zip(members, _DTYPES.values(), strict=True)
    )
    if not kinds or len(offsets) != len(loss_from) + 1 or offsets[0] != 0 or offsets[-1] != len(tokens):
        raise ValueError
    part = TokenDataset(tokens, offsets, loss_from)
    targets = part.lengths - loss_from
    if len(part) and (targets.min() < 1 or loss_from.min() < 1 or tokens.to(torch.int32).max() >= VOCAB_SIZE):
        raise ValueError
    return part
