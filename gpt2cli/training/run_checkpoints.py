"""The checkpoints that a run is resumed from: weights, optimizer state and counters after a step.

    checkpoints/step-00000120/{weights.safetensors, optimizer.safetensors, state.json}

With `--schedule wsd`, the one from before the learning rate falls also holds a copy of the best weights until then: see
weights_writer.py.

See resuming.py for how a resumed run stays exact.
"""

import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from gpt2cli import untrusted
from gpt2cli.atomic import sync_directory, sync_file
from gpt2cli.checkpoints.files import read_safetensors
from gpt2cli.checkpoints.torch_arrays import to_tensors
from gpt2cli.errors import CheckpointError, ResourceError
from gpt2cli.training.checkpoint_directories import checkpoint_at, checkpoints, step_of
from gpt2cli.training.optim import Optimizer
from gpt2cli.training.state_json import Counters, FileInfo, StateFile, read_state_file

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
KEEP = 2
"""How many of the newest checkpoints are kept."""


@dataclass(frozen=True, kw_only=True)
class Resumable:
    """A checkpoint read from disk: weights by name, state as `NAME.KEY` (see `Optimizer.keys`), and the counters."""

    path: Path
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    counters: Counters
    identity: dict[str, Any] = field(default_factory=dict)  # data, shape and settings of the run
    went_back: bool = False  # whether newer ones do not fit, as the learning rate had begun to fall


def save_state(
    directory: Path, optimizer: Optimizer, counters: Counters, identity: dict[str, Any], kept_step: int | None = None
) -> Path:
    """Write a checkpoint into `directory`, then delete all but the newest KEEP and the one after `kept_step`.

    Later ones are deleted too: they are from before the run was resumed from an older checkpoint. Raises ResourceError.
    """
    final = checkpoint_at(directory, counters.step)
    temporary = directory / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        trained = optimizer.trained
        save_file({name: p.detach().contiguous() for name, p in trained.items()}, temporary / WEIGHTS)
        state = {name: optimizer.state.get(p, {}) for name, p in trained.items()}
        tensors = {f"{name}.{key}": t.contiguous() for name, kept in state.items() for key, t in kept.items()}
        save_file(tensors, temporary / OPTIMIZER)
        files = {name: _info(temporary / name) for name in (WEIGHTS, OPTIMIZER)}
        (temporary / STATE).write_text(StateFile(files, counters, identity).as_text(), encoding="utf-8")
        for name in (WEIGHTS, OPTIMIZER, STATE):
            sync_file(temporary / name)
        sync_directory(temporary)
        shutil.rmtree(final, ignore_errors=True)  # from before the run was resumed from an older checkpoint
        temporary.rename(final)
        sync_directory(directory)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResourceError(f"cannot save to {directory} ({reason}): the last checkpoint is intact") from None
    finally:  # after the rename, nothing is left to delete
        shutil.rmtree(temporary, ignore_errors=True)
    found = checkpoints(directory)
    place = found.index(final)
    old = [path for path in found[place + KEEP :] if step_of(path) != kept_step]
    for path in [*found[:place], *old]:
        shutil.rmtree(path, ignore_errors=True)
    return final


def restore(optimizer: Optimizer, found: Resumable) -> None:
    """Copy a checkpoint's weights and state into `optimizer`. Raises CheckpointError if it is of another model."""
    trained = optimizer.trained
    if {name: p.shape for name, p in trained.items()} != {name: t.shape for name, t in found.weights.items()}:
        raise CheckpointError(
            f"{found.path} belongs to another model: resume with the settings that the run began with"
        )
    for name, parameter in trained.items():
        parameter.detach().copy_(found.weights[name])
        shapes = {(), tuple(parameter.shape)}
        state = {key: found.optimizer.get(f"{name}.{key}") for key in optimizer.keys[parameter]}
        if found.counters.step and any(value is None for value in state.values()):
            raise CheckpointError(f"{found.path} has no optimizer state of {name}: resume from an older checkpoint")
        if any(value is not None and tuple(value.shape) not in shapes for value in state.values()):
            raise CheckpointError(f"{found.path} has optimizer state of another shape: resume from an older checkpoint")
        optimizer.state[parameter] = {
            key: value.clone().to(parameter.device) for key, value in state.items() if value is not None
        }


def read_newest(
    directory: Path, fits: Callable[[StateFile], bool] = lambda state: True
) -> Iterator[Resumable | CheckpointError]:
    """Yield the newest whole checkpoint that `fits` and, before it, the error of each newer one that is damaged."""
    for path in checkpoints(directory):
        try:
            if fits(_read_state_file(path)):  # before gigabytes are read
                yield read_state(path)
                return
        except CheckpointError as error:  # noqa: PERF203
            yield error


def _read_state_file(checkpoint: Path) -> StateFile:
    """The `state.json` of a checkpoint. Raises CheckpointError if it is missing, damaged or changed."""
    try:
        return read_state_file(checkpoint / STATE)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{checkpoint} is not a complete checkpoint ({error})") from None


def read_state(path: Path) -> Resumable:
    """Read and check one checkpoint. Raises CheckpointError if anything is missing, damaged or changed."""
    state = _read_state_file(path)
    try:
        if state.counters.step != step_of(path.absolute()):
            raise CheckpointError(f"{path} is damaged: its {STATE} belongs to step {state.counters.step}")
        if set(state.files) != {WEIGHTS, OPTIMIZER}:
            raise CheckpointError(f"{path / STATE} is damaged: it does not list {WEIGHTS} and {OPTIMIZER}")
        for name, info in state.files.items():
            if not untrusted.is_file(path / name) or _info(path / name) != info:
                raise CheckpointError(f"{path / name} is damaged")
        weights = to_tensors(read_safetensors(path / WEIGHTS).tensors)
        optimizer = to_tensors(read_safetensors(path / OPTIMIZER).tensors)
        return Resumable(
            path=path, weights=weights, optimizer=optimizer, counters=state.counters, identity=state.identity
        )
    except (OSError, TypeError, ValueError) as error:  # TypeError: tensors of 8-bit floats, which torch does not take
        raise CheckpointError(f"{path} is not a complete checkpoint ({error})") from None


def _info(path: Path) -> FileInfo:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(2**22):
            checksum = zlib.crc32(chunk, checksum)
    return FileInfo(path.stat().st_size, checksum)
