"""Where things are kept on disk: `$GPT2CLI_HOME`, or the platform's data directory for gpt2cli."""

import errno
import os
from importlib.resources import files
from pathlib import Path

import platformdirs

from gpt2cli.errors import UsageError
from gpt2cli.untrusted import shown


def home() -> Path:
    """The directory that holds everything which gpt2cli keeps for its user."""
    chosen = os.environ.get("GPT2CLI_HOME")
    return expand(chosen) if chosen else Path(platformdirs.user_data_dir("gpt2cli", appauthor=False))


def expand(path: str | Path) -> Path:
    """The path with `~` or `~somebody` as the home directory.

    Raises UsageError if that person has none, and for a name that no file can have: too long, or with a NUL in it.
    """
    try:
        expanded = Path(path).expanduser()
        os.lstat(expanded)
    except RuntimeError:
        raise UsageError(f"{path}: there is no such home directory: give the whole path") from None
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"{shown(str(path))} cannot be the name of a file: check it") from None
    return expanded


def models() -> Path:
    """Downloaded weights, one directory a Hub repository."""
    return home() / "models"


def datasets() -> Path:
    """Prepared training data, and the downloads that it was made from."""
    return home() / "datasets"


def asset(name: str) -> Path:
    """A file that comes with the package."""
    return Path(str(files("gpt2cli") / "assets" / name))
