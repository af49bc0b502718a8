"""The tables of `gpt2 explain`, one for each finding. The first heading of each is its title."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from gpt2cli.cli.terminal import visible_line
from gpt2cli.cli.views.bar_chart import bar, percent
from gpt2cli.cli.views.surprisal import bits
from gpt2cli.insight.attention import LABEL_SCORE
from gpt2cli.insight.findings import (
    Ablation,
    Attribution,
    Compared,
    Difference,
    Heads,
    Lens,
    Next,
    Patching,
    Saliency,
    Tokens,
)
from gpt2cli.tokenizer import show

ROWS = 6
"""Rows of a table on a screen."""
BAR = 6
"""Columns of the longest bar."""
KINDS = {"previous": "previous token", "duplicate": "same token", "induction": "induction", "first": "first token"}
"""What the labels of heads are called."""
Row = TypeVar("Row")


@dataclass(frozen=True)
class Tables:
    """Makes the tables: short ones for a screen, or those with all rows for a pipe.

    blocks         whether the terminal can show block characters
    longest_token  columns of a token's text on a screen
    """

    screen: bool
    blocks: bool
    longest_token: int

    def token(self, text: str) -> str:
        """A token on one line, in quotes, which show its blanks."""
        shown = f'"{visible_line(text)}"'
        if self.screen and cell_len(shown) > self.longest_token:
            return set_cell_size(shown, self.longest_token - 4) + '..."'
        return shown

    def prompt(self, found: Tokens) -> Table:
        table = _table("token", "id", "bits", "rank", "likeliest", numbers={1, 2, 3})
        for row in found.rows:
            surprisal = bits(row)
            numbers = ("-", "-") if surprisal is None else (f"{surprisal:.2f}", f"{row.rank:,}")
            table.add_row(self.token(row.text), str(row.id), *numbers, self.token(row.top[0].text) if row.top else "-")
        return table

    def next(self, found: Next) -> Table:
        table = _table("next token", "model", "", "sampled", numbers={1, 3})
        sampled = {choice.id: choice.probability for choice in found.sampled}
        highest = max(choice.probability for choice in found.top)
        for choice in self._first(found.top):
            drawn = Text(bar(choice.probability / highest, BAR, self.blocks), "cyan")
            share = percent(sampled[choice.id]) if choice.id in sampled else "-"
            table.add_row(self.token(choice.text), percent(choice.probability), drawn, share)
        return table

    def lens(self, found: Lens) -> Table:
        """What the lens says after each layer. The first row is that of the embedding."""
        table = _table("layer", "likeliest", "", self.token(found.target.text), numbers={2, 3})
        for row in self._thinned([row for row in found.rows if row.after != "attn"]):
            likeliest = row.top[0]
            name = row.after if row.layer is None else str(row.layer)
            target = row.places[-1].next
            style = "bold" if likeliest.id == found.target.id else ""
            table.add_row(
                name, Text(self.token(likeliest.text), style), percent(likeliest.probability), percent(target)
            )
        return table

    def parts(self, attribution: Attribution | None, ablation: Ablation | None, heads: Heads | None) -> Table:
        """The heads and MLPs that change the result most if they are removed; without ablations, that add most."""
        adds = {row.part: row.contribution for row in attribution.parts} if attribution else {}
        changes = {row.part: row.change for row in ablation.rows} if ablation else {}
        labels = {f"{row.layer}.{row.head}": KINDS.get(row.label, "") for row in heads.rows} if heads else {}
        found = [name for name in changes or adds if name.startswith("mlp.") or name.replace(".", "").isdigit()]
        names = self._first(sorted(found, key=lambda name: -abs((changes or adds)[name])))
        columns = [("adds", adds), ("without", changes)]
        shown = [(heading, numbers) for heading, numbers in columns if numbers]
        attends = ["attends to"] if any(labels.get(name) for name in names) else []
        table = _table("head or MLP", *(heading for heading, _ in shown), *attends, numbers={1, len(shown)})
        for name in names:
            label = [labels.get(name, "")] if attends else []
            table.add_row(name, *(_signed(numbers[name]) for _, numbers in shown), *label)
        return table

    def saliency(self, found: Saliency) -> Table:
        table = _table("prompt token", "moves it", "gradient", numbers={1, 2})
        rows = sorted(found.tokens, key=lambda row: -abs(row.integrated_gradients)) if self.screen else found.tokens
        for row in self._first(rows):
            table.add_row(self.token(row.text), _signed(row.integrated_gradients), _signed(row.gradient_x_input))
        return table

    def heads(self, found: Heads) -> Table:
        """The heads of each kind, with the highest scores first."""
        table = _table("heads that attend to", "", "")
        for label, kind in KINDS.items():
            of_kind = [row for row in found.rows if row.label == label]
            of_kind.sort(key=lambda row: -(getattr(row.repeated, label) or 0.0))
            if of_kind:
                names = [f"{row.layer}.{row.head}" for row in self._first(of_kind)]
                table.add_row(kind, f"{len(of_kind)}", " ".join(names))
        if not table.row_count:
            table.add_row("none", "", f"no score reaches {LABEL_SCORE:g}")
        return table

    def patching(self, found: Patching, prompt: Sequence[int]) -> Table:
        """For each layer the place and the head that carry most of the difference."""
        table = _table("before layer", "difference is at", "share", "head", "share", numbers={2, 4})
        for layer, (stream, heads) in self._thinned(list(enumerate(zip(found.stream, found.heads, strict=True)))):
            place = max(range(len(stream)), key=stream.__getitem__)
            head = max(range(len(heads)), key=heads.__getitem__)
            name = f"{place + 1}: {self.token(show(prompt[place]))}"
            table.add_row(str(layer), name, f"{stream[place]:.2f}", f"{layer}.{head}", f"{heads[head]:.2f}")
        return table

    def compared(self, found: Compared) -> Iterator[Table]:
        """Three tables: what the second model changes in the next token, the lens, and what the parts add."""
        largest = self._first(sorted(found.next, key=lambda row: -abs(row.after - row.before)))
        if largest:
            rows = [Difference(self.token(row.name), row.before, row.after) for row in largest]
            yield self._before_and_after("next token", rows, percent)
        layers = [row for row in found.lens if not row.name.startswith("attn")]
        if layers:
            rows = [
                Difference(row.name.removeprefix("mlp."), math.exp(row.before), math.exp(row.after))
                for row in self._thinned(layers)
            ]
            yield self._before_and_after(f"layer, {self.token(found.target.text)}", rows, percent)
        parts = sorted(found.attribution, key=lambda row: -abs(row.after - row.before))
        if parts:
            yield self._before_and_after("adds", self._first(parts), _signed)

    def _before_and_after(self, title: str, rows: Sequence[Difference], spell: Callable[[float], str]) -> Table:
        table = _table(title, "before", "after", numbers={1, 2})
        for row in rows:
            table.add_row(row.name, spell(row.before), spell(row.after))
        return table

    def _first(self, rows: Sequence[Row]) -> Sequence[Row]:
        return rows[:ROWS] if self.screen else rows

    def _thinned(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The first and the last row, and some between them at equal distances."""
        if not self.screen or len(rows) <= ROWS:
            return rows
        return [rows[round(number * (len(rows) - 1) / (ROWS - 1))] for number in range(ROWS)]


def _table(title: str, *headings: str, numbers: Collection[int] = ()) -> Table:
    """An empty table. The columns `numbers` are aligned on the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(Text(title, "bold not dim"), no_wrap=True)
    for column, heading in enumerate(headings, 1):
        table.add_column(Text(heading), no_wrap=True, justify="right" if column in numbers else "left")
    return table


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # + 0.0: not -0.00
