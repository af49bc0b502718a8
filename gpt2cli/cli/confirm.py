"""Asks the user before something is deleted."""

from gpt2cli.cli.environment import current
from gpt2cli.cli.terminal import Console, visible_line
from gpt2cli.errors import UsageError


def confirmed(console: Console, question: str, *, yes: bool) -> bool:
    """Whether the user agrees: by `yes`, which is the option --yes, or by an answer on the terminal.

    Raises UsageError if there is nobody to ask, because stdin is not a terminal.
    """
    if yes:
        return True
    if not current().stdin.isatty():
        raise UsageError("nobody can be asked before files are deleted, as stdin is not a terminal: add --yes")
    console.err.out(f"{visible_line(question)} [y/N] ", end="", highlight=False)
    return current().stdin.readline().strip().lower() in ("y", "yes")
