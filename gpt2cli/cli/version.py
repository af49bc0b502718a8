"""`gpt2 --version`."""

from gpt2cli import __version__
from gpt2cli.cli.terminal import Console


def print_version() -> None:
    Console().write(f"gpt2cli {__version__}\n")
