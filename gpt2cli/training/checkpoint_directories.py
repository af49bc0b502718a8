"""The directories of a run's checkpoints, `checkpoints/step-00000120`: finding and deleting them. Needs no torch.

Other files beside them are never deleted: the user may have chosen a directory with other things for the run.
"""

import re
import shutil
from contextlib import suppress
from pathlib import Path

_NAME = re.compile(r"step-(\d{8,18})")


def step_of(path: Path) -> int | None:
    """The step in a checkpoint's name; None if the path is not named like a checkpoint."""
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else None


def checkpoint_at(directory: Path, step: int) -> Path:
    """The path of the checkpoint after a step."""
    return directory / f"step-{step:08d}"


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in a directory, the newest first."""
    by_step = {step: path for path in directory.glob("step-*") if (step := step_of(path)) is not None}
    return [by_step[step] for step in sorted(by_step, reverse=True)]


def other_files(directory: Path) -> list[Path]:
    """What is in a directory, which may not exist, besides checkpoints and unfinished ones. Raises OSError."""
    if directory.is_symlink() or not directory.is_dir():
        return []
    return [path for path in directory.iterdir() if not re.fullmatch(r"step-\d{8,18}|\.step-.*\.tmp", path.name)]


def sweep(directory: Path) -> None:
    """Delete unfinished checkpoints of killed processes. No other process may be saving here."""
    for left in directory.glob(".step-*.tmp"):
        shutil.rmtree(left, ignore_errors=True)


def delete_checkpoints(directory: Path) -> None:
    """Delete all checkpoints in a directory, the oldest first, and the directory if nothing else is in it.

    Files that cannot be deleted stay. No other process may be saving here.
    """
    sweep(directory)
    for checkpoint in reversed(checkpoints(directory)):
        shutil.rmtree(checkpoint, ignore_errors=True)
    with suppress(OSError):
        directory.rmdir()
