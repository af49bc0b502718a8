"""The help pages: usage, options in two columns, examples. Narrow terminals get one column."""

import os
import re
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gpt2cli.bounds import choices
from gpt2cli.cli.terminal import Console
from gpt2cli.cli.typer_internals import argument_name, default_in_words, is_option, value_type

SMALLEST_WIDTH, TWO_COLUMNS, LARGEST_WIDTH = 24, 72, 100
"""Characters of a line: of the narrowest page, of the narrowest one with two columns, and of the widest."""
WITHOUT_TERMINAL = 80
"""Characters of a line where no terminal says how many it has."""
LONGEST_LEFT = 26
"""Characters of the left column. The description of a longer option begins on the next line."""
INDENT = "  "
NO_BREAK = "\N{NO-BREAK SPACE}"
OF_TYPE = {int: "N", float: "X"}
"""How a page writes a value of this type."""
EXAMPLES = "Examples"
HELP_PANEL, FIRST_PANEL = "Help", "Options"

Page = Iterator[tuple[str, str | None]]
"""Parts of a page, with their styles."""


@dataclass(frozen=True)
class Row:
    """A line of a list: the name of an option or of a command, what it does, and the default in brackets."""

    name: str
    description: str
    default: str = ""


Panels = dict[str, list[Row]]
"""Lists by their headings."""


def show_page(command: Any, context: Any) -> None:
    """Print the help page of a command, or of the command that has the others in `panels`.

    Its `epilog` holds examples, one a line: a command, then two spaces, `#` and what the command does.
    """
    console = Console()
    width = min(max(columns(), SMALLEST_WIDTH), LARGEST_WIDTH)
    parts = _top_page if hasattr(command, "panels") else _command_page
    for text, style in parts(command, context, width):
        console.write(text, style)


def columns() -> int:
    """The width of the terminal that the process has. Like rich's, but without importing it."""
    set_by_user = os.environ.get("COLUMNS", "")
    if set_by_user.isdigit():
        return int(set_by_user)
    for descriptor in (0, 1, 2):
        with suppress(OSError, ValueError):
            return os.get_terminal_size(descriptor).columns or WITHOUT_TERMINAL
    return WITHOUT_TERMINAL


def _top_page(group: Any, context: Any, width: int) -> Page:
    yield f"Usage: {context.command_path} COMMAND [OPTIONS]\n\n", None
    yield _paragraphs(group.help, width), None
    yield from _examples(group.epilog, "Start here", width)
    yield from _panels(
        {title: [Row(name, summary) for name, summary in named.items()] for title, named in group.panels.items()}, width
    )
    yield from _panels({FIRST_PANEL: [_row(param, context) for param in group.get_params(context)]}, width)
    more = f"`{context.command_path} COMMAND --help` shows the options of a command, with examples."
    yield "\n" + _paragraphs(more, width), None


def _command_page(command: Any, context: Any, width: int) -> Page:
    params = command.get_params(context)
    names = " ".join(f"[{argument_name(param)}]" for param in params if not is_option(param))
    required = " ".join(f"{_name(param)}" for param in params if param.required)
    usage = " ".join(part for part in (f"Usage: {context.command_path}", required, "[OPTIONS]", names) if part)
    yield textwrap.fill(usage, width, subsequent_indent=INDENT * 2) + "\n\n", None
    yield _paragraphs(command.help, width), None
    panels: Panels = {}
    for param in params:
        panel = HELP_PANEL if "--help" in param.opts else param.rich_help_panel or FIRST_PANEL
        panels.setdefault(panel if is_option(param) else "Arguments", []).append(_row(param, context))
    yield from _panels(panels, width)
    yield from _examples(command.epilog, EXAMPLES, width)


def _row(param: Any, context: Any) -> Row:
    default = default_in_words(param, context)
    return Row(_name(param), " ".join((param.help or "").split()), f"[default: {default}]" if default else "")


def _name(param: Any) -> str:
    """The names of an option and its value, such as `-n, --max-new-tokens N`."""
    if not is_option(param):
        return argument_name(param)
    names = sorted(
        (*param.opts, *param.secondary_opts), key=lambda name: (name.startswith("--"), name.startswith("--no-"))
    )
    if param.is_flag:
        return ", ".join(names)
    kind = value_type(param)
    return f"{', '.join(names)} {param.metavar or '|'.join(choices(kind)) or OF_TYPE.get(kind, 'TEXT')}"


def _panels(panels: Panels, width: int) -> Page:
    """Lists whose descriptions stand beside the names, or below them if the page is narrow or a name is long."""
    lengths = [len(row.name) for rows in panels.values() for row in rows if len(row.name) <= LONGEST_LEFT]
    column = len(INDENT) + max(lengths, default=0) + 2 if width >= TWO_COLUMNS else 3 * len(INDENT)
    for title, rows in panels.items():
        yield f"\n{title}\n", "bold"
        for row in rows:
            lines = _described(row, width - column)
            yield INDENT + row.name, "cyan"
            if lines and width >= TWO_COLUMNS and len(row.name) <= LONGEST_LEFT:
                yield " " * (column - len(INDENT) - len(row.name)) + lines.pop(0), None
            yield "".join(f"\n{' ' * column}{line}" for line in lines) + "\n", None


def _described(row: Row, width: int) -> list[str]:
    """The lines of a description. The default stays in one piece if it fits into a line."""
    whole = f"{row.description} {row.default.replace(' ', NO_BREAK)}".strip()
    lines = textwrap.wrap(whole, width, break_on_hyphens=False, break_long_words=False)
    return [part for line in lines for part in textwrap.wrap(line.replace(NO_BREAK, " "), width) or [""]]


def _paragraphs(text: str, width: int) -> str:
    return "\n\n".join(textwrap.fill(" ".join(part.split()), width) for part in text.split("\n\n")) + "\n"


def _examples(epilog: str, title: str, width: int) -> Page:
    """The examples with aligned comments, or with each comment above its command if the lines would be too long."""
    pairs = [[part.strip() for part in line.partition("  # ")[::2]] for line in epilog.splitlines() if line.strip()]
    longest = max(len(command) for command, _ in pairs)
    aligned = all(len(INDENT) + longest + 4 + len(comment) <= width for _, comment in pairs)
    yield f"\n{title}\n", "bold"
    for command, comment in pairs:
        if aligned:
            yield f"{INDENT}{command:<{longest}}", None
            yield f"  # {comment}\n", "dim"
            continue
        yield textwrap.indent(textwrap.fill(comment, width - 4), INDENT + "# ") + "\n", "dim"
        yield _in_lines(command, width - 2) + "\n", None


def _in_lines(command: str, width: int) -> str:
    """A command in lines that end in a backslash, so that a shell takes them together."""
    unbroken = re.sub(r"( --?[\w-]+) (?!-)", rf"\1{NO_BREAK}", command)  # an option and its value
    unbroken = re.sub('"[^"]*"', lambda quoted: quoted[0].replace(" ", NO_BREAK), unbroken)
    lines = textwrap.wrap(unbroken, width - len(INDENT) - 2, break_on_hyphens=False, break_long_words=False)
    indented = (f"{INDENT * (1 + (number > 0))}{line}" for number, line in enumerate(lines))
    return " \\\n".join(indented).replace(NO_BREAK, " ")
