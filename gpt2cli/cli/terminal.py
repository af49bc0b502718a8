"""Output: results on stdout, everything else on stderr. On a terminal, control characters are spelled out.

rich is imported by what shows styles or notes: a result in a pipe needs none of it.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal, TextIO

from gpt2cli.cli.environment import current

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

LONGEST_LINE = 1000
"""The largest number of characters in an error or a note. Longer ones, which may quote a file, are shortened."""

STDOUT = "the standard output"
"""The name of stdout in an error message."""

# Characters that harm a terminal, or hide a text from its reader: C0 and C1 controls and DEL, except newline and tab;
# marks that change the direction of a text; line and paragraph separators; characters without any width, except the
# two joiners and the selectors that emoji and some scripts need; and tags, which spell a second, invisible text.
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)
_ERASE_TO_END = "\x1b[K"


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
    # the beginning names the problem, the end the advice
    return f"{text[: LONGEST_LINE * 2 // 3]} ... {text[-LONGEST_LINE // 4 :]}"


def _spelled(control: str) -> str:
    code = ord(control)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Console:
    """The output of one command. `quiet` silences notes and progress, never results or errors.

    A status line can stand below the other output, and gives way to it. Any thread can draw it.
    """

    def __init__(self, quiet: bool = False) -> None:
        environment = current()
        self.quiet = quiet
        self._stdout, self._stderr = environment.stdout, environment.stderr
        self._in_line = False
        self._lock = RLock()
        self._status_owners: list[object] = []
        self._status_covers = 0
        self._has_status = False

    @cached_property
    def _out(self) -> "RichConsole":
        return terminal(self._stdout)

    @cached_property
    def err(self) -> "RichConsole":
        return terminal(self._stderr)

    @property
    def animates(self) -> bool:
        """Whether stderr can redraw a line. (With FORCE_COLOR, rich takes everything for a terminal.)"""
        return self._stderr.isatty() and not self.err.is_dumb_terminal

    @property
    def prints_on_terminal(self) -> bool:
        """Whether stdout is a terminal."""
        return self._stdout.isatty()

    @property
    def columns(self) -> int:
        """The current width of the terminal."""
        return self._out.width

    def write(self, text: str, style: str | None = None) -> None:
        """Write text to stdout at once. Only on a terminal, controls are spelled out and the style is used."""
        with _named(STDOUT), self._above_status():
            if self.prints_on_terminal:
                from rich.segment import Segment, Segments

                segment = Segment(visible(text), self._out.get_style(style) if style else None)
                self._out.print(Segments([segment]), end="", crop=False)  # unlike `out`, it leaves tabs as they are
            else:
                self._stdout.write(text)
            self._stdout.flush()
            self._in_line = not text.endswith("\n") if text else self._in_line

    def end_line(self) -> None:
        """On a terminal, where results and notes meet, begin a new line if the last result did not end its line."""
        if self._in_line and self.prints_on_terminal:
            with suppress(OSError):  # an error that matters more may be about to be reported
                self.write("\n")

    def json(self, value: Any) -> None:
        """Write one object to stdout, as one line of JSON in ASCII, which any locale and any terminal can show."""
        import json

        with _named(STDOUT):
            self._stdout.write(json.dumps(value) + "\n")
            self._stdout.flush()

    def note(self, text: str, wrap: bool = False) -> None:
        """Write one line to stderr, unless `quiet`. With `wrap`, a terminal breaks it between words.

        Notes with commands or paths are not wrapped, so that a person can copy them.
        """
        if not self.quiet:
            from rich.text import Text

            with suppress(OSError), self._above_status():  # a full disk behind stderr does not stop the command
                self.err.print(Text(visible_line(text), style="dim"), soft_wrap=not (wrap and self.animates))

    def table(self, rows: Mapping[str, str]) -> None:
        """Write names and texts to stderr in two columns, even if `quiet`: the user asked for them."""
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        for name, text in rows.items():
            grid.add_row(Text(visible(name), no_wrap=True), Text(visible(text)))
        with suppress(OSError), self._above_status():
            self.err.print(grid)

    def begin_status(self, owner: object) -> None:
        """Let `owner` draw the status line until `end_status`, in place of the owner before."""
        with self._above_status():
            self._status_owners.append(owner)

    def end_status(self, owner: object) -> None:
        """Erase the status line of `owner`, and let the owner before draw it again."""
        with self._above_status():
            self._status_owners = [other for other in self._status_owners if other is not owner]

    def cover_status(self) -> None:
        """Draw no status line until `uncover_status`, because another display has its place."""
        with self._above_status():
            self._status_covers += 1

    def uncover_status(self) -> None:
        self._status_covers -= 1

    def draw_status(self, owner: object, text: str) -> None:
        """Draw one line on stderr, which must be a terminal, in place of the status line before.

        Does nothing if the line is covered, if it has another owner, or if stdout is in the middle of a line.
        """
        with self._lock, suppress(OSError):
            in_line = self._in_line and self.prints_on_terminal
            if in_line or self._status_covers or self._status_owners[-1:] != [owner]:
                return
            from rich.cells import cell_len, set_cell_size

            # shorter than the terminal, because some terminals wrap after the last column
            line = set_cell_size(text, min(cell_len(text), max(0, self.err.width - 2)))
            dim, plain = ("\x1b[2m", "\x1b[0m") if self.err.color_system else ("", "")
            # the cursor stays at the beginning, so that whatever else writes to the terminal replaces the line
            self._put(f"\r{dim}{line}{plain}{_ERASE_TO_END}\r")
            self._has_status = True

    @contextmanager
    def _above_status(self) -> Iterator[None]:
        """Erase the status line, and do not draw it inside the block."""
        with self._lock:
            if self._has_status:
                with suppress(OSError):
                    self._put(f"\r{_ERASE_TO_END}")
                self._has_status = False
            yield

    def _put(self, text: str) -> None:
        self.err.file.write(text)
        self.err.file.flush()


def report_error(message: str) -> None:
    """Show an error as one line on stderr."""
    from rich.text import Text

    line = Text.assemble(("error:", "bold red"), " ", visible_line(message.strip()))
    terminal(current().stderr).print(line, soft_wrap=True)


@contextmanager
def _named(place: str) -> Iterator[None]:
    """Add the place to an OSError that names no file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or place
        raise


def terminal(stream: TextIO, width: int | None = None) -> "RichConsole":
    """A rich console for a stream. It shows texts as they are: no markup, no emoji codes, no highlighted numbers.

    Its `print` raises BrokenPipeError if nobody reads the stream, and OSError, naming the stream, for a full disk.
    """
    from rich.console import Console as RichConsole

    class Printer(RichConsole):
        def print(self, *objects: Any, **options: Any) -> None:
            with _named(STDOUT if stream is current().stdout else "the standard error"):
                super().print(*objects, **options)

        def on_broken_pipe(self) -> None:  # rich's own ends the program with exit code 1
            raise BrokenPipeError

    # with NO_COLOR alone, rich would still write bold and dim
    colors: Literal["auto"] | None = None if current().variables.get("NO_COLOR") else "auto"
    return Printer(file=stream, width=width, highlight=False, emoji=False, markup=False, color_system=colors)


@contextmanager
def trimmed(console: "RichConsole") -> Iterator[None]:
    """In a pipe, print what the block prints without the blanks at line ends, with which tables fill their columns."""
    if console.is_terminal:
        yield
        return
    with _named(STDOUT):
        with console.capture() as printed:
            yield
        console.file.write(re.sub(" +$", "", printed.get(), flags=re.MULTILINE))
        console.file.flush()


@contextmanager
def typing_unseen() -> Iterator[None]:
    """Hide typed characters inside the block. They are read afterwards, as part of the next line."""
    stdin = current().stdin
    if not stdin.isatty() or sys.platform == "win32":  # Windows hides them anyway
        yield
        return
    import termios

    before = termios.tcgetattr(stdin)
    unseen = termios.tcgetattr(stdin)
    unseen[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(stdin, termios.TCSANOW, unseen)
    try:
        yield
    finally:
        termios.tcsetattr(stdin, termios.TCSANOW, before)
