"""The two streams of a command: results on stdout, everything else on stderr."""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Literal, TextIO

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

LONGEST_LINE = 1000
"""The most characters of an error or a note, which may quote a text as long as a file."""

# Characters that harm a terminal, or hide a text from its reader: C0 and C1 controls and DEL, except newline and tab;
# marks that change the direction of a text; line and paragraph separators; characters without any width, except the
# two joiners and the selectors that emoji and some scripts need; and tags, which spell a second, invisible text.
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    r"""The text with its control characters spelled out (ESC becomes \x1b), safe to show on a terminal."""
    return _CONTROLS.sub(lambda match: _spelled(match[0]), text)


def visible_line(text: str) -> str:
    r"""As `visible`, on one line (a newline becomes \n), and shortened in the middle to LONGEST_LINE characters."""
    line = visible(_shortened(text)).replace("\n", r"\n").replace("\t", r"\t")
    return _shortened(line)  # again: what is spelled out is longer


def _shortened(text: str) -> str:
    if len(text) <= LONGEST_LINE:
        return text
    # the beginning says what is wrong, the end what to do about it
    return f"{text[: LONGEST_LINE * 2 // 3]} ... {text[-LONGEST_LINE // 4 :]}"


def _spelled(control: str) -> str:
    code = ord(control)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


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
        with _named("the standard output"):
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
        with _named("the standard output"):
            sys.stdout.write(json.dumps(value) + "\n")
            sys.stdout.flush()

    def note(self, text: str) -> None:
        """Say something on the side, in one line."""
        if not self.quiet:
            with suppress(OSError):  # a full disk behind stderr is no reason to stop
                self.err.print(Text(visible_line(text), style="dim"), soft_wrap=True)

    def table(self, rows: Mapping[str, str]) -> None:
        """Answer on the side what somebody asked for, also when quiet: names, and what there is to say of each."""
        grid = Table.grid(padding=(0, 2))
        for name, text in rows.items():
            grid.add_row(Text(visible(name), no_wrap=True), Text(visible(text)))
        with suppress(OSError):
            self.err.print(grid)


def report_error(message: str) -> None:
    """Show an error as one line on stderr."""
    line = Text.assemble(("error:", "bold red"), " ", visible_line(message.strip()))
    terminal(sys.stderr).print(line, soft_wrap=True)


@contextmanager
def _named(place: str) -> Iterator[None]:
    """Add the place to an error of the operating system that names no file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or place
        raise


def terminal(stream: TextIO, width: int | None = None) -> RichConsole:
    """A stream as rich sees it, with no guessing at what looks like markup, a number or an emoji in a text."""
    colors: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"  # rich would leave bold and dim
    return RichConsole(file=stream, width=width, highlight=False, emoji=False, markup=False, color_system=colors)
