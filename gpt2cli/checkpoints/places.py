"""From the name of a model to its directory or file. The error for a wrong name says what to give instead."""

import re
from pathlib import Path

from gpt2cli.atomic import recover
from gpt2cli.checkpoints import adapter_files
from gpt2cli.checkpoints.headers import check_header, check_regular
from gpt2cli.checkpoints.hub_layout import check_directory, refuse_parent_of_adapter
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.hub.names import parse_name
from gpt2cli.paths import asset, expand
from gpt2cli.published import PUBLISHED, TINY
from gpt2cli.untrusted import is_directory, is_file

FILE_ENDINGS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".gguf")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.(?:safetensors|gguf|bin)")


def find_directory(model: str) -> Path | None:
    """The directory that a name means; None for a model of the Hub, whose directory is in the cache of downloads.

    Raises UsageError for a name that can be neither.
    """
    if model == TINY:
        return asset(TINY)
    path = expand(model)
    if model and model not in PUBLISHED:
        if not is_directory(path):
            recover(path)  # an export may have been killed between two renames
        if is_directory(path):
            return path
        if is_file(path):
            raise UsageError(f"{model} is a file: give it as --ckpt")
    if model.startswith((".", "~")) or path.is_absolute():
        raise UsageError(f"there is no directory {model}: give one in the Hub's layout, or a name such as gpt2")
    if model.endswith(FILE_ENDINGS):
        raise UsageError(f"there is no {model}: give a directory or a name as --model, and a checkpoint file as --ckpt")
    parse_name(model)
    return None


def find_base(name: str) -> Path | None:
    """The base of an adapter: as `find_directory`, or a checkpoint file."""
    file = expand(name)
    return file if name not in (*PUBLISHED, TINY) and is_file(file) else find_directory(name)


def check_file(path: Path) -> None:
    """Raise UsageError or CheckpointError if a path is not a checkpoint file. The message says what to give instead."""
    if is_directory(path):
        refuse_parent_of_adapter(path)
        raise UsageError(f"{path} is a directory: give it as --model, or name a file in it")
    check_regular(path)
    shard = _SHARD.search(path.name)
    if shard and int(shard[2]) > 1:
        raise CheckpointError(f"{path} is one of {int(shard[2])} parts of a model: give its directory as --model")
    if path.name == adapter_files.WEIGHTS:
        raise UsageError(f"{path} is the file of an adapter: give its directory as --ckpt")


def check_place(place: Path) -> None:
    """Raise the errors of reading a model here that names and the beginnings of files show."""
    if is_directory(place):
        check_directory(place)
    else:
        check_header(place)
