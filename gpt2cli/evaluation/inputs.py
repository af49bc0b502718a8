"""The inputs of an evaluation: which models, and files of answers. They are checked without torch, before the work."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.data.values import FORMATS, is_data_file
from gpt2cli.errors import UsageError
from gpt2cli.untrusted import is_file, missing


def compared_models(models: Sequence[str], ckpts: Sequence[str], machine: ModelSpec) -> list[ModelSpec]:
    """These models and checkpoints, with the device, the precision and `offline` of `machine`.

    The models come first, so that the checkpoints are compared with a base model. If exactly one model is given,
    adapters are merged into it, and otherwise each into the base that it names.
    """
    found = [replace(machine, ckpt=ckpt) for ckpt in ckpts]
    if len(models) == 1:
        found = [replace(spec, model=models[0]) if spec.names_adapter else spec for spec in found]
    return [*(replace(machine, model=name) for name in models), *found]


def check_answers_file(name: str, path: Path) -> None:
    """Raise UsageError for a path that holds no answers. `name` is what the user typed."""
    if not is_file(path):
        raise UsageError(f"{name} is {missing(path)}: give --answers-from a {FORMATS}")
    if not is_data_file(path):
        raise UsageError(f"{name} does not hold answers: give --answers-from a {FORMATS}")
