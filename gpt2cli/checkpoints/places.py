"""From the name of a model to its directory or file. The error for a wrong name says what to give instead."""

import re
from pathlib import Path

from gpt2cli.atomic import recover
from gpt2cli.checkpoints import adapters
from gpt2cli.checkpoints.files import Contents, check_regular, read_safetensors, read_shards
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.hub import models
from gpt2cli.paths import asset, expand
from gpt2cli.progress import Progress
from gpt2cli.published import PUBLISHED, TINY
from gpt2cli.untrusted import is_directory, is_file

FILE_ENDINGS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".gguf")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.(?:safetensors|gguf|bin)")


def find_directory(model: str, offline: bool, progress: Progress, for_text: bool = False) -> Path:
    """The directory that holds a model: a local one, or the one that the cache keeps for a name.

    With `for_text`, nothing large is downloaded for a model that was made for another tokenizer than GPT-2's.
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
    return models.resolve(model, offline=offline, progress=progress, for_text=for_text)


def find_base(name: str, offline: bool, progress: Progress, for_text: bool = False) -> Path:
    """The base of an adapter: a directory, as in `find_directory`, or a checkpoint file."""
    file = expand(name)
    if name not in (*PUBLISHED, TINY) and is_file(file):
        return file
    return find_directory(name, offline, progress, for_text)


def check_file(path: Path) -> None:
    """Raise UsageError or CheckpointError if a path is not a checkpoint file. The message says what to give instead."""
    if is_directory(path):
        refuse_parent_of_adapter(path)
        raise UsageError(f"{path} is a directory: give it as --model, or name a file in it")
    check_regular(path)
    shard = _SHARD.search(path.name)
    if shard and int(shard[2]) > 1:
        raise CheckpointError(f"{path} is one of {int(shard[2])} parts of a model: give its directory as --model")
    if path.name == adapters.WEIGHTS:
        raise UsageError(f"{path} is the file of an adapter: give its directory as --ckpt")


def refuse_parent_of_adapter(directory: Path) -> None:
    """Raise UsageError if an adapter is in a directory inside this one, where PEFT saves adapters with names."""
    if not is_file(directory / models.CONFIG):
        inside = sorted(child for child in directory.iterdir() if adapters.is_adapter(child))
        if inside:
            raise UsageError(f"{directory} holds an adapter in a directory: give {inside[0]} as --ckpt")


def read_weights(directory: Path) -> Contents:
    """The tensors of a directory in the Hub's layout, in one file or in shards, and the facts in their headers."""
    whole, index = directory / models.WEIGHTS, directory / models.INDEX
    if is_file(whole):
        return read_safetensors(whole)
    if is_file(index):
        return read_shards(index)
    if any(directory.glob("*.bin")):
        raise CheckpointError(f"{directory} has its weights in a pickle only, refused: convert them to safetensors")
    raise CheckpointError(f"{directory} holds no {models.WEIGHTS}: fetch the model again")
