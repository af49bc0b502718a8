"""The two streams of a command: results on stdout, everything else on stderr."""

import json
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, TextIO

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

# C0 and C1 controls and DEL, except newline and tab: on a terminal they could move the cursor, or worse
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    r"""The text with its control characters spelled out (ESC becomes \x1b), safe to show on a terminal."""
    return _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


class Console:
    """Writes for one command. `quiet` silences notes and progress, never results or errors."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._out = terminal(sys.stdout)
        self.err = terminal(sys.stderr)
        self._in_line = False

    @property
    def animates(self) -> bool:
        """Whether stderr can redraw a line. (For rich, FORCE_COLOR makes a terminal of everything.)"""
        return sys.stderr.isatty() and not self.err.is_dumb_terminal

    def write(self, text: str, style: str | None = None) -> None:
        """Put text on stdout at once: raw into a pipe, with visible controls (and the style) on a terminal."""
        if sys.stdout.isatty():
            self._out.out(visible(text), style=style, end="")
        else:
            sys.stdout.write(text)
        sys.stdout.flush()
        self._in_line = not text.endswith("\n") if text else self._in_line

    def end_line(self) -> None:
        """Give what comes next a line of its own, where results and notes meet: on a terminal."""
        if self._in_line and sys.stdout.isatty():
            with suppress(OSError):  # something worse may be on its way
                self.write("\n")

    def json(self, value: Any) -> None:
        """Put one object on stdout, as one line of JSON, in ASCII: right in any locale, harmless to any terminal."""
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Say something on the side."""
        if not self.quiet:
            with suppress(OSError):  # a full disk behind stderr is no reason to stop
                self.err.print(Text(visible(text), style="dim"), soft_wrap=True)

    def table(self, rows: Mapping[str, str]) -> None:
        """Answer on the side what somebody asked for, also when quiet: names, and what there is to say of each."""
        grid = Table.grid(padding=(0, 2))
        for name, text in rows.items():
            grid.add_row(Text(visible(name), no_wrap=True), Text(visible(text)))
        with suppress(OSError):
            self.err.print(grid)


def report_error(message: str) -> None:
    """Show an error as one line on stderr."""
    line = Text.assemble(("error:", "bold red"), " ", visible(" ".join(message.split())))
    terminal(sys.stderr).print(line, soft_wrap=True)


def terminal(stream: TextIO, width: int | None = None) -> RichConsole:
    """A stream as rich sees it, with no guessing at what looks like markup, a number or an emoji in a text."""
    colors: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"  # rich would leave bold and dim
    return RichConsole(file=stream, width=width, highlight=False, emoji=False, markup=False, color_system=colors)
