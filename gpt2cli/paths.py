"""The directories for downloads and data, in `$GPT2CLI_HOME` or the platform's data directory for gpt2cli."""

import errno
import os
from importlib.resources import files
from pathlib import Path

import platformdirs

from gpt2cli.errors import ResourceError, UsageError
from gpt2cli.untrusted import shown


def home() -> Path:
    """The directory for all files that gpt2cli keeps. Raises ResourceError if the user has no home directory."""
    chosen = os.environ.get("GPT2CLI_HOME")
    try:
        return (
            expand(chosen)
            if chosen and chosen.strip()
            else Path(platformdirs.user_data_dir("gpt2cli", appauthor=False))
        )
    except RuntimeError:  # neither HOME is set, nor has this user an account
        raise ResourceError("there is no home directory: set GPT2CLI_HOME to a directory to keep things in") from None


def make(directory: Path) -> None:
    """Make a directory and its parents. Raises ResourceError, with GPT2CLI_HOME in the message if under `home()`."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        advice = "choose another place"
        if directory.is_relative_to(home()):
            advice = "set GPT2CLI_HOME to a directory that can be written"
        raise ResourceError(f"cannot make {directory} ({error.strerror or error}): {advice}") from None


def expand(path: str | Path) -> Path:
    """The path with a leading `~` or `~somebody` as the home directory. `./~x`, as a text, is a file of that name.

    Raises UsageError if that user has no home directory and there is no such file, and for a name that no file can
    have: too long, or with a NUL in it.
    """
    try:
        expanded = Path(path).expanduser() if str(path).startswith("~") else Path(path)
        os.lstat(expanded)
    except RuntimeError:
        if os.path.lexists(path):
            return Path(path)
        raise UsageError(f"{path}: there is no such home directory: give the whole path") from None
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"{shown(str(path))} cannot be the name of a file: check it") from None
    return expanded


def models() -> Path:
    """The directory of downloaded weights, with one directory for each Hub repository."""
    return home() / "models"


def datasets() -> Path:
    """The directory of prepared training data and of the downloads for it."""
    return home() / "datasets"


def asset(name: str) -> Path:
    """A file that comes with the package."""
    return Path(str(files("gpt2cli") / "assets" / name))
