"""Where things are kept on disk: `$GPT2CLI_HOME`, or the platform's data directory for gpt2cli."""

import os
from importlib.resources import files
from pathlib import Path

import platformdirs


def home() -> Path:
    """The directory that holds everything which gpt2cli keeps for its user."""
    chosen = os.environ.get("GPT2CLI_HOME")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("gpt2cli", appauthor=False))


def models() -> Path:
    """Downloaded weights, one directory a Hub repository."""
    return home() / "models"


def asset(name: str) -> Path:
    """A file that comes with the package."""
    return Path(str(files("gpt2cli") / "assets" / name))
