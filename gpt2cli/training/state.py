"""What a killed run needs to go on as if nothing had happened: weights, optimizer, counters, on disk.

    checkpoints/step-00000120/{weights.safetensors, optimizer.safetensors, state.json}

A directory is written under another name, brought to disk, and then renamed; `state.json` holds the files' sizes and
checksums, its own included. The order of the data and the dropout of a step follow from (seed, step) alone, so there is
no random state to keep.
"""

import re
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from gpt2cli import untrusted
from gpt2cli.atomic import sync_directory, sync_file
from gpt2cli.checkpoints.files import read_safetensors
from gpt2cli.config import TrainConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.training.optim import Optimizer
from gpt2cli.training.state_file import Counters as Counters
from gpt2cli.training.state_file import FileFacts, StateFile, read_state_file

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
KEEP = 2
"""Checkpoints that stay when a new one has been written."""
_NAME = re.compile(r"step-(\d{8,18})")


@dataclass(frozen=True)
class Resumable:
    """A checkpoint read from disk: tensors by name, and the counters."""

    path: Path
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    counters: Counters
    identity: dict[str, Any] = field(default_factory=dict)  # what the run is about: data, shape, settings


def save_state(
    directory: Path,
    model: torch.nn.Module,
    optimizer: Optimizer,
    counters: Counters,
    identity: dict[str, Any],
) -> Path:
    """Write a checkpoint below `directory`, then remove all but the newest KEEP. Raises OSError if the disk is full."""
    final = directory / f"step-{counters.step:08d}"
    temporary = directory / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        save_file(trained_weights(model), temporary / WEIGHTS)
        save_file(_optimizer_tensors(model, optimizer), temporary / OPTIMIZER)
        files = {name: _facts(temporary / name) for name in (WEIGHTS, OPTIMIZER)}
        (temporary / STATE).write_text(StateFile(files, counters, identity).as_text(), encoding="utf-8")
        for name in (WEIGHTS, OPTIMIZER, STATE):
            sync_file(temporary / name)
        sync_directory(temporary)
        shutil.rmtree(final, ignore_errors=True)  # of a run that was resumed from an older one
        temporary.rename(final)
        sync_directory(directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in checkpoints(directory)[KEEP:]:
        if old != final:
            shutil.rmtree(old, ignore_errors=True)
    return final


def trained_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """The parameters that training changes: all of them, or those of the adapter."""
    return {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}


def _optimizer_tensors(model: torch.nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore(model: torch.nn.Module, optimizer: Optimizer, found: Resumable) -> None:
    """Put weights and optimizer back as they were. Raises CheckpointError if they are of another model."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if {name: p.shape for name, p in trained.items()} != {name: t.shape for name, t in found.weights.items()}:
        raise CheckpointError(f"{found.path} is of another model: resume with the settings that the run began with")
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(found.weights[name])
    for name, parameter in trained.items():
        shapes = {(), tuple(parameter.shape)}
        state = {key: found.optimizer.get(f"{name}.{key}") for key in optimizer.keys[parameter]}
        if found.counters.step and any(value is None for value in state.values()):
            raise CheckpointError(f"{found.path} has no optimizer state of {name}: resume from an older checkpoint")
        if any(value is not None and tuple(value.shape) not in shapes for value in state.values()):
            raise CheckpointError(f"{found.path} has optimizer state of another shape: resume from an older checkpoint")
        optimizer.state[parameter] = {
            key: value.clone().to(parameter.device) for key, value in state.items() if value is not None
        }


def step_of(path: Path) -> int | None:
    """The step that a checkpoint is named after; None for a path that is not named as a checkpoint is."""
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else None


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints below a directory, the newest first."""
    by_step = {step: path for path in directory.glob("step-*") if (step := step_of(path)) is not None}
    return [by_step[step] for step in sorted(by_step, reverse=True)]


def sweep(directory: Path) -> None:
    """Delete what killed processes left of checkpoints. Nobody else may be saving there."""
    for left in directory.glob(".step-*.tmp"):
        shutil.rmtree(left, ignore_errors=True)


def read_newest(directory: Path) -> Iterator[Resumable | CheckpointError]:
    """Read checkpoints from the newest on: yield the error of each damaged one, and the first whole one as the last."""
    for path in checkpoints(directory):
        try:
            yield read_state(path)
            return
        except CheckpointError as error:  # noqa: PERF203
            yield error


def read_state(path: Path) -> Resumable:
    """Read one checkpoint, and check it. Raises CheckpointError if anything is missing, damaged or changed."""
    try:
        state = read_state_file(path / STATE)
        if state.counters.step != step_of(path.absolute()):
            raise CheckpointError(f"{path} is damaged: its {STATE} is of step {state.counters.step}")
        if set(state.files) != {WEIGHTS, OPTIMIZER}:
            raise CheckpointError(f"{path / STATE} is damaged: it does not list {WEIGHTS} and {OPTIMIZER}")
        for name, facts in state.files.items():
            if not untrusted.is_file(path / name) or _facts(path / name) != facts:
                raise CheckpointError(f"{path / name} is damaged")
        weights = read_safetensors(path / WEIGHTS).tensors
        optimizer = read_safetensors(path / OPTIMIZER).tensors
        return Resumable(path, weights, optimizer, state.counters, state.identity)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a complete checkpoint ({error})") from None


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What the identities of two runs differ in, in words."""
    if "optimizer" in now:  # which runs that began before there was a choice do not name
        then = {"optimizer": TrainConfig.optimizer} | then
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    digests = {"data": "the data has changed", "base": "the model that the adapter is for has changed"}
    shown = untrusted.shown
    return [digests.get(key, f"{key} was {shown(then.get(key))}, is {shown(now.get(key))}") for key in keys]


def _facts(path: Path) -> FileFacts:
    return FileFacts(path.stat().st_size, _crc32(path))


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(2**22):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
