"""`state.json` of a checkpoint: counters, the identity of the run, and sizes and checksums of the other files.

The file also holds a checksum of its content, because one wrong digit would change the weights of a resumed run.
"""

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpt2cli import untrusted
from gpt2cli.bounds import FieldError
from gpt2cli.training.events import SMOOTHED
from gpt2cli.training.stored_json import read_object, typed

_CHECKSUM = "crc32"


@dataclass
class Counters:
    """The progress of a run."""

    step: int = 0  # optimizer steps done
    tokens_seen: int = 0
    train_seconds: float = 0.0
    recent: list[tuple[float, int]] = field(
        default_factory=list
    )  # (summed loss, targets) of each of the last steps, at most SMOOTHED
    val_loss: float | None = None
    val_step: int | None = None
    best_val_loss: float | None = None
    best_val_step: int | None = None
    worse_evaluations: int = 0  # in a row, after the best one
    fall_began: bool = False  # whether a step was taken after those in `steps_before_fall`
    val_records: int | None = None  # validation records of every evaluation; None in checkpoints of version 0.1

    @property
    def train_loss(self) -> float | None:
        """The smoothed loss: the mean over all targets of the `recent` steps; None before the first step."""
        n_targets = sum(n for _, n in self.recent)
        return sum(total for total, _ in self.recent) / n_targets if n_targets else None

    def count(self, loss: float, n_targets: int, tokens: int, seconds: float, *, smoothed: int) -> None:
        """Count a step. `loss` is the mean over its `n_targets` targets; `smoothed` steps are kept as `recent`."""
        self.step += 1
        self.tokens_seen += tokens
        self.train_seconds += seconds
        self.recent = [*self.recent, (loss * n_targets, n_targets)][-smoothed:]

    def count_evaluation(self, loss: float) -> bool:
        """Count an evaluation after the current step. Returns whether it is the best so far."""
        best = self.best_val_loss is None or loss < self.best_val_loss
        self.val_loss, self.val_step = loss, self.step
        self.worse_evaluations = 0 if best else self.worse_evaluations + 1
        if best:
            self.best_val_loss, self.best_val_step = loss, self.step
        return best

    def check(self) -> None:
        """Raise ValueError if the counters cannot be those of a run."""
        losses = [total for total, _ in self.recent] + [self.val_loss or 0.0, self.best_val_loss or 0.0]
        if len(self.recent) > SMOOTHED or not all(map(math.isfinite, losses)) or not 0 <= self.train_seconds < math.inf:
            raise ValueError("the counters are not those of a run")


@dataclass(frozen=True)
class FileInfo:
    """Size in bytes and CRC-32 of a file beside `state.json`."""

    size: int
    crc32: int


@dataclass(frozen=True)
class StateFile:
    """The content of `state.json`. `identity` holds the data, the shape and the settings of the run."""

    files: dict[str, FileInfo]
    counters: Counters
    identity: dict[str, Any]

    def as_text(self) -> str:
        content = asdict(self)
        return json.dumps({_CHECKSUM: _checksum(content)} | content, indent=1)


def read_state_file(path: Path) -> StateFile:
    """Read a `state.json`. Raises ValueError, with the reason, if the file was damaged or changed, and OSError.

    Files of version 0.1 have no checksum; only the types of their values are checked.
    """
    content = read_object(path)
    expected = content.pop(_CHECKSUM, None)
    try:
        state: StateFile = typed(content, StateFile)
    except FieldError as error:
        raise ValueError(str(error)) from None
    state.counters.check()
    for name, value in state.identity.items():
        if not name.isidentifier() or not (value is None or isinstance(value, str | int | float)):
            raise ValueError(f"identity has {untrusted.shown(name)}, which is {untrusted.shown(value)}")
    if expected is not None and expected != _checksum(content):
        raise ValueError(f"{path.name} was changed after it was written")
    return state


def _checksum(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())
