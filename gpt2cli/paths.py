"""The directories of gpt2cli: `$GPT2CLI_HOME` or the platform's directory for user data, and what is in it."""

import errno
import os
from pathlib import Path

from gpt2cli.errors import ResourceError, UsageError
from gpt2cli.untrusted import shown


def home() -> Path:
    """The directory for all files that gpt2cli keeps.

    Raises ResourceError if GPT2CLI_HOME is not set and the user has no home directory, and UsageError as `expand`.
    """
    chosen = os.environ.get("GPT2CLI_HOME", "")
    if chosen.strip():
        return expand(chosen)
    import platformdirs

    try:
        return Path(platformdirs.user_data_dir("gpt2cli", appauthor=False))
    except RuntimeError:  # HOME is not set, and the user has no account
        raise ResourceError(
            "there is no home directory: set GPT2CLI_HOME to a directory for the files of gpt2cli"
        ) from None


def make(directory: Path) -> None:
    """Make a directory and its parents, unless they exist.

    Raises ResourceError. For a directory in `home()`, its message names GPT2CLI_HOME.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        advice = "choose another place"
        if directory.is_relative_to(home()):
            advice = "set GPT2CLI_HOME to a directory that can be written"
        raise ResourceError(f"cannot make {directory} ({error.strerror or error}): {advice}") from None


def expand(path: str | Path) -> Path:
    """The path with a leading `~` or `~user` replaced by that home directory. The text `./~x` is a file named `~x`.

    If the user does not exist but a file of that name does, returns the file. Raises UsageError if neither exists, and
    for a name that no file can have: too long, or with a NUL character.
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
    """The directory for downloaded weights, with one directory for each Hub repository."""
    return home() / "models"


def datasets() -> Path:
    """The directory for prepared training data and the files that it was made from."""
    return home() / "datasets"


def runs() -> Path:
    """The directory for all training runs without `--run-dir`."""
    return home() / "runs"


def evaluations() -> Path:
    """The directory for the results of interrupted evaluations."""
    return home() / "evaluations"


def chat_history() -> Path:
    """The file with the lines that were typed in chats."""
    return home() / "chat_history"


def cache() -> Path | None:
    """The directory for files that can be made again: `$GPT2CLI_CACHE`, or the platform's directory for caches.

    None if the user has no home directory.
    """
    import platformdirs

    chosen = os.environ.get("GPT2CLI_CACHE", "").strip()
    try:
        return expand(chosen) if chosen else Path(platformdirs.user_cache_dir("gpt2cli", appauthor=False))
    except RuntimeError:
        return None


def compiled() -> Path | None:
    """The directory for the compiled loops of the CPU; None if the user has no home directory."""
    base = cache()
    return None if base is None else base / "compiled"


def packed() -> Path | None:
    """The directory for packed weights of models that were not downloaded; None if the user has no home directory.

    It is in `cache()`, or in GPT2CLI_HOME if that is set: it can become large.
    """
    base = home() if os.environ.get("GPT2CLI_HOME", "").strip() else cache()
    return None if base is None else base / "packed"


def asset(name: str) -> Path:
    """A file that comes with the package."""
    return Path(__file__).parent / "assets" / name
