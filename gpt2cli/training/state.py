"""What a killed run needs to go on as if nothing had happened: weights, optimizer, counters, on disk.

    checkpoints/step-00000120/{weights.safetensors, optimizer.safetensors, state.json}

A directory is written under another name, brought to disk, and then renamed; `state.json` holds the other files' sizes
and checksums. The order of the data and the dropout of a step follow from (seed, step) alone, so there is no random
state to keep.
"""

import json
import os
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from gpt2cli.atomic import sync_directory
from gpt2cli.checkpoints.files import read_safetensors
from gpt2cli.config import TrainConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.training.events import SMOOTHED
from gpt2cli.training.optim import Optimizer

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
KEEP = 2
"""Checkpoints that stay when a new one has been written."""


@dataclass
class Counters:
    """How far a run has come."""

    step: int = 0  # optimizer steps done
    tokens_seen: int = 0
    train_seconds: float = 0.0
    recent: list[tuple[float, int]] = field(default_factory=list)  # of each of the last steps: summed loss, targets
    val_loss: float | None = None
    val_step: int | None = None
    best_val_loss: float | None = None
    best_val_step: int | None = None
    worse_evaluations: int = 0  # since the best one

    @property
    def train_loss(self) -> float | None:
        """The smoothed loss: the mean over all targets of the last steps; None if there were none."""
        n_targets = sum(n for _, n in self.recent)
        return sum(total for total, _ in self.recent) / n_targets if n_targets else None

    def count(self, loss: float, n_targets: int, tokens: int, seconds: float) -> None:
        """Take account of a step: its mean loss, and over how many of its tokens."""
        self.step += 1
        self.tokens_seen += tokens
        self.train_seconds += seconds
        self.recent = [*self.recent, (loss * n_targets, n_targets)][-SMOOTHED:]


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
        files = {
            name: {"size": (temporary / name).stat().st_size, "crc32": _crc32(temporary / name)}
            for name in (WEIGHTS, OPTIMIZER)
        }
        state = {"files": files, "counters": asdict(counters), "identity": identity}
        (temporary / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
        for name in (WEIGHTS, OPTIMIZER, STATE):
            _sync(temporary / name)
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
        state = {key: found.optimizer.get(f"{name}.{key}") for key in optimizer.keys[parameter]}
        if found.counters.step and any(value is None for value in state.values()):
            raise CheckpointError(f"{found.path} has no optimizer state of {name}: resume from an older checkpoint")
        optimizer.state[parameter] = {
            key: value.clone().to(parameter.device) for key, value in state.items() if value is not None
        }


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints below a directory, the newest first."""
    return sorted(directory.glob("step-*"), reverse=True)


def read_newest(directory: Path) -> Iterator[Resumable | CheckpointError]:
    """The newest checkpoint that is whole, last; before it, what is wrong with each newer one."""
    for path in checkpoints(directory):
        try:
            yield read_state(path)
            return
        except CheckpointError as error:  # noqa: PERF203
            yield error


def read_state(path: Path) -> Resumable:
    """Read one checkpoint, and check it. Raises CheckpointError if anything is missing or damaged."""
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        for name, file in state["files"].items():
            if (path / name).stat().st_size != file["size"] or _crc32(path / name) != file["crc32"]:
                raise CheckpointError(f"{path / name} is damaged")
        counters = Counters(**state["counters"])
        weights = read_safetensors(path / WEIGHTS).tensors
        optimizer = read_safetensors(path / OPTIMIZER).tensors
        return Resumable(path, weights, optimizer, counters, state["identity"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is no whole checkpoint ({error})") from None


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What the identities of two runs differ in, in words."""
    if "optimizer" in now:  # which runs that began before there was a choice do not name
        then = {"optimizer": TrainConfig.optimizer} | then
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    digests = {"data": "the data has changed", "base": "the model that the adapter is for has changed"}
    return [digests.get(key, f"{key} was {then.get(key)!r}, is {now.get(key)!r}") for key in keys]


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(2**22):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
