"""Checks that a file or a directory can be written, before the long work whose result it will hold."""

import os
import tempfile
from collections.abc import Collection
from pathlib import Path

from gpt2cli import untrusted
from gpt2cli.errors import ResourceError, UsageError

CHECKPOINT_SUFFIXES = (".pt", ".safetensors")
"""The ends of the names of checkpoints that gpt2cli writes."""
_LONGEST_NAME = 255
"""Bytes in the name of a file on nearly every file system."""


def check_suffix(path: Path, suffixes: Collection[str], what: str, *, any_case: bool = False) -> None:
    """Raise UsageError unless the name ends in one of these suffixes. `what` names the kind of file."""
    if (path.suffix.lower() if any_case else path.suffix) not in suffixes:
        raise UsageError(f"{path} is no name for {what}: let it end in {' or '.join(suffixes)}")


def check_checkpoint(path: Path) -> None:
    """Raise UsageError or ResourceError if no checkpoint can be written to this path: before hours of training."""
    check_suffix(path, CHECKPOINT_SUFFIXES, "a checkpoint")
    check_unicode(path)
    check_file(path)


def check_file(path: Path) -> None:
    """Raise ResourceError unless a file of this name can be made or replaced. Nothing is left behind.

    Raises UsageError for a directory, and for a name that is too long.
    """
    if untrusted.is_directory(path):
        raise UsageError(f"{path} is a directory: name a file in it")
    check_name(path)


def check_name(path: Path) -> None:
    """As `check_file`, for a file or a directory."""
    _check_names(path)
    _try_to_write(path, path.absolute().parent)


def check_directory(path: Path) -> None:
    """Raise ResourceError unless this directory, or its first parent that exists, can be written to.

    Raises UsageError for a name that is too long.
    """
    _check_names(path)
    directory = path.absolute()
    while not os.path.lexists(directory) and directory != directory.parent:
        directory = directory.parent
    _try_to_write(path, directory)


def check_free(path: Path, force: bool) -> None:
    """Raise UsageError if `path` exists, unless `force` allows to replace it."""
    if not force and os.path.lexists(path):
        raise UsageError(f"{path} is there already: use --force to replace it, or choose another --out")


def refuse_input(path: Path, what: str) -> UsageError:
    """The error for a path that cannot be written because it is an input; `what` says which."""
    return UsageError(f"{path} is {what}: write elsewhere")


def check_unicode(path: Path) -> None:
    """Raise UsageError for a name that is not UTF-8: torch and safetensors cannot open such a file."""
    if not untrusted.is_encodable(str(path)):
        raise UsageError(f"{untrusted.shown(str(path))} is not UTF-8: choose another name")


def _check_names(path: Path) -> None:
    """Raise UsageError if a part of the path is too long for a name."""
    for part in path.parts:
        if len(os.fsencode(part)) > _LONGEST_NAME:
            raise UsageError(f"{untrusted.shown(part)} is too long for the name of a file: choose a shorter one")


def _try_to_write(path: Path, directory: Path) -> None:
    """Make a file in `directory` and delete it. Permission bits do not tell about read-only file systems."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not untrusted.is_directory(directory):
            reason = f"there is no directory {directory}: make it first"
        else:
            reason = f"{error.strerror or error}: {_other_place(path)}"
        raise ResourceError(f"cannot write {path}: {reason}") from None


def _other_place(path: Path) -> str:
    """The advice for a place that cannot be written. For a path under GPT2CLI_HOME, it is to change that variable."""
    chosen = os.environ.get("GPT2CLI_HOME")
    if chosen and path.absolute().is_relative_to(Path(chosen).absolute()):
        return "set GPT2CLI_HOME to another place"
    return "choose another place"
