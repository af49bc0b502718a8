"""The files of an adapter in PEFT's format, checked without torch: their names, and `adapter_config.json`."""

import os
from pathlib import Path

from gpt2cli.atomic import recover
from gpt2cli.checkpoints.headers import read_json
from gpt2cli.checkpoints.limits import MAX_NAME
from gpt2cli.checkpoints.peft_config import PeftConfig, parse_config
from gpt2cli.errors import CheckpointError
from gpt2cli.untrusted import is_directory, is_file, is_name, shown

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"


def is_adapter(path: Path) -> bool:
    """Whether a path is a directory that holds an adapter.

    If there is nothing at the path, a directory that a killed export moved away is brought back first.
    """
    if is_directory(path.parent) and not os.path.lexists(path):
        recover(path)
    return any(is_file(path / name) for name in (CONFIG, WEIGHTS, PICKLE))


def read_adapter_config(directory: Path) -> tuple[PeftConfig, str | None]:
    """How the matrices of an adapter are applied, and the model that it adapts: a name, a directory or a file.

    Raises CheckpointError for a damaged config, and if the weights are missing or a pickle.
    """
    file = directory / CONFIG
    if not is_file(file):
        raise CheckpointError(f"{directory} holds no {CONFIG}: save the adapter again")
    fields = read_json(file)
    config = parse_config(fields, file)
    base, revision = fields.get("base_model_name_or_path"), fields.get("revision")
    for name, value in (("base_model_name_or_path", base), ("revision", revision)):
        if value is not None and not (is_name(value) and len(value) <= MAX_NAME):
            raise CheckpointError(f"{file}: {name} is {shown(value)}, not a name: save the adapter again")
    if base and revision and not is_directory(Path(base)):
        base = f"{base}@{revision}"
    if not is_file(directory / WEIGHTS):
        if is_file(directory / PICKLE):
            raise CheckpointError(f"{directory} has its weights in a pickle only, refused: save them as safetensors")
        raise CheckpointError(f"{directory} holds no {WEIGHTS}: save the adapter again")
    return config, base or None
