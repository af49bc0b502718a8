"""The tokens of a prompt with their surprisal in bits, in colour: how unexpected each one was to the model."""

import math
from collections.abc import Sequence
from itertools import pairwise

from rich.cells import cell_len
from rich.text import Text

from gpt2cli.cli.terminal import visible_line
from gpt2cli.insight.findings import TokenRow

STYLES = ((2.0, "green"), (5.0, "cyan"), (9.0, "magenta"), (math.inf, "bold red"))
"""Each style is for a surprisal below the number, in bits. All are legible on dark and on light backgrounds."""
MOST_LINES = 3
"""Lines of tokens on a terminal. Only the last tokens of a longer prompt are shown."""


def bits(row: TokenRow) -> float | None:
    """The surprisal: -log2 of the token's probability. None for the first token, which nothing predicts."""
    return None if row.logprob is None else -row.logprob / math.log(2)


def style_of(surprisal: float | None) -> str:
    return "dim" if surprisal is None else next(style for limit, style in STYLES if surprisal < limit)


def ranges() -> Text:
    """The ranges of bits, each in its colour."""
    limits = [0, *(int(limit) for limit, _ in STYLES[:-1])]
    spelled = [f"{low}-{high}" for low, high in pairwise(limits)] + [f"{limits[-1]}+"]
    return Text(" ").join(Text(words, style) for words, (_, style) in zip(spelled, STYLES, strict=True))


def prompt_lines(rows: Sequence[TokenRow], width: int) -> list[Text]:
    """Lines of tokens, each above a line of numbers, for a terminal of this width.

    A number begins below the first visible character of its token.
    """
    lines: list[tuple[Text, Text]] = []
    room = 0
    for row in rows:
        tokens, numbers = _cell(row, width)
        if cell_len(tokens.plain) > room:
            lines.append((Text(no_wrap=True), Text(no_wrap=True)))
            room = width
        lines[-1][0].append_text(tokens)
        lines[-1][1].append_text(numbers)
        room -= cell_len(tokens.plain)
    hidden = sum(1 for _ in lines[:-MOST_LINES])
    shown = [line for pair in lines[-MOST_LINES:] for line in pair]
    return [Text(f"({hidden} lines of tokens before)", "dim"), *shown] if hidden else shown


def _cell(row: TokenRow, width: int) -> tuple[Text, Text]:
    """A token and its number, equally wide."""
    surprisal = bits(row)
    style = style_of(surprisal)
    text = Text(visible_line(row.text), style)
    text.truncate(width, overflow="ellipsis")
    indent = len(row.text) - len(row.text.lstrip(" "))
    number = "-" if surprisal is None else f"{surprisal:.1f}" if surprisal < 10 else f"{surprisal:.0f}"
    # a blank after the number keeps it apart from the next one, unless the next token brings its own
    cells = max(cell_len(text.plain), min(indent, width // 2) + len(number) + 1)
    below = Text(" " * min(indent, width // 2) + number, style)
    text.append(" " * (cells - cell_len(text.plain)))
    below.append(" " * (cells - len(below)))
    return text, below
