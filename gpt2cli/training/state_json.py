"""`state.json` of a checkpoint: counters, the identity of the run, and sizes and checksums of the other files.

It also holds a checksum of its own content: after a change of one digit, a resumed run would learn other weights.
"""

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from gpt2cli import untrusted
from gpt2cli.training.events import SMOOTHED

_CHECKSUM = "crc32"
_LARGEST = 2**63  # all counters are below
_MAX_BYTES = 2**24  # a real file has a few kilobytes


@dataclass
class Counters:
    """The progress of a run."""

    step: int = 0  # optimizer steps done
    tokens_seen: int = 0
    train_seconds: float = 0.0
    recent: list[tuple[float, int]] = field(default_factory=list)  # (summed loss, targets) of each of the last steps
    val_loss: float | None = None
    val_step: int | None = None
    best_val_loss: float | None = None
    best_val_step: int | None = None
    worse_evaluations: int = 0  # in a row, after the best one

    @property
    def train_loss(self) -> float | None:
        """The smoothed loss: the mean over all targets of the last SMOOTHED steps; None before the first step."""
        n_targets = sum(n for _, n in self.recent)
        return sum(total for total, _ in self.recent) / n_targets if n_targets else None

    def count(self, loss: float, n_targets: int, tokens: int, seconds: float) -> None:
        """Count a step. `loss` is the mean over its `n_targets` targets."""
        self.step += 1
        self.tokens_seen += tokens
        self.train_seconds += seconds
        self.recent = [*self.recent, (loss * n_targets, n_targets)][-SMOOTHED:]

    def count_evaluation(self, loss: float) -> bool:
        """Count an evaluation after the current step. Returns whether it is the best so far."""
        best = self.best_val_loss is None or loss < self.best_val_loss
        self.val_loss, self.val_step = loss, self.step
        self.worse_evaluations = 0 if best else self.worse_evaluations + 1
        if best:
            self.best_val_loss, self.best_val_step = loss, self.step
        return best


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
    raw = untrusted.read_at_most(path, _MAX_BYTES) if untrusted.is_file(path) else None
    if raw is None:
        raise ValueError(f"{path.name} is missing, too large, or not a regular file")
    content = _table(untrusted.parse_json(raw), path.name)
    expected = content.pop(_CHECKSUM, None)
    if set(content) != {"files", "counters", "identity"}:
        raise ValueError(f"{path.name} has missing or unknown entries")
    files = {name: _info(value) for name, value in _table(content["files"], "files").items()}
    counters, identity = _counters(content["counters"]), _table(content["identity"], "identity")
    for name, value in identity.items():
        if not name.isidentifier() or not (value is None or isinstance(value, str | int | float)):
            raise ValueError(f"identity has {untrusted.shown(name)}, which is {untrusted.shown(value)}")
    if expected is not None and expected != _checksum(content):
        raise ValueError(f"{path.name} was changed after it was written")
    return StateFile(files, counters, identity)


def _checksum(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {untrusted.shown(value)}, not a table")
    return value


def _info(value: Any) -> FileInfo:
    info = _table(value, "a file")
    return FileInfo(_count("size", info.get("size")), _count("crc32", info.get("crc32")))


def _counters(value: Any) -> Counters:
    """The counters, with their types checked. A counter that is newer than the file keeps its default."""
    found = _table(value, "counters")
    if unknown := set(found) - {each.name for each in fields(Counters)}:
        raise ValueError(f"{untrusted.shown(min(unknown))} is no counter")
    for name in ("step", "tokens_seen", "worse_evaluations"):
        _count(name, found.get(name, 0))
    for name in ("val_step", "best_val_step"):
        if found.get(name) is not None:
            _count(name, found[name])
    for name in ("val_loss", "best_val_loss"):
        if found.get(name) is not None:
            _number(name, found[name])
    if _number("train_seconds", found.get("train_seconds", 0.0)) < 0:
        raise ValueError("train_seconds is below 0")
    return Counters(**found | {"recent": _recent(found.get("recent", []))})


def _recent(value: Any) -> list[tuple[float, int]]:
    if not isinstance(value, list) or len(value) > SMOOTHED:
        raise ValueError(f"recent is {untrusted.shown(value)}, not a list of the last {SMOOTHED} steps")
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"recent has {untrusted.shown(pair)}, not a pair")
    return [(_number("recent", total), _count("recent", n)) for total, n in value]


def _count(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise ValueError(f"{name} is {untrusted.shown(value)}, not a count")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, float) and math.isfinite(value):
        return value
    if type(value) is int and abs(value) < _LARGEST:
        return value
    raise ValueError(f"{name} is {untrusted.shown(value)}, not a finite number")
