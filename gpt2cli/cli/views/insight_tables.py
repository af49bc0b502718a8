"""The tables of `gpt2 explain`, one or two for each finding. The first heading of each is its title."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from gpt2cli.cli.terminal import visible_line
from gpt2cli.cli.views.bar_chart import bar, percent
from gpt2cli.cli.views.row_choice import telling_rows
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

LEAST_ROWS = 6
"""Rows of a table on a low screen."""
STRONGEST = 5
"""Heads that are listed of those that patching measured."""
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
    rows           of a table on a screen
    """

    screen: bool
    blocks: bool
    longest_token: int
    rows: int = LEAST_ROWS

    def token(self, text: str) -> str:
        """A token on one line, in quotes, which show its blanks."""
        escaped = visible_line(text).replace('"', r"\"")
        shown = f'"{escaped}"'
        if self.screen and cell_len(shown) > self.longest_token:
            return set_cell_size(shown, self.longest_token - 4) + '..."'
        return shown

    def at(self, place: int, text: str) -> str:
        """A token of the prompt with its place. The first place is 1."""
        return f"{place + 1}: {self.token(text)}"

    def prompt(self, found: Tokens) -> Table:
        table = _table("token", "id", "surprisal", "rank", "likeliest", numbers={1, 2, 3})
        for place, row in enumerate(found.rows):
            surprisal = bits(row)
            numbers = ("-", "-") if surprisal is None else (f"{surprisal:.2f}", f"{row.rank:,}")
            likeliest = self.token(row.top[0].text) if row.top else "-"
            table.add_row(self.at(place, row.text), str(row.id), *numbers, likeliest)
        return table

    def next(self, found: Next, asked: Collection[int]) -> Table:
        """The likeliest tokens, and the `asked` ones."""
        table = _table("next token", "model", "", "sampled", numbers={1, 3})
        sampled = {choice.id: choice.probability for choice in found.sampled}
        highest = max(choice.probability for choice in found.top)
        for choice in (*self._first(found.top), *(choice for choice in self._later(found.top) if choice.id in asked)):
            drawn = Text(bar(choice.probability / highest, BAR, self.blocks), "cyan")
            share = percent(sampled[choice.id]) if choice.id in sampled else "-"
            token = Text(self.token(choice.text), "bold" if choice.id in asked else "")
            table.add_row(token, percent(choice.probability), drawn, share)
        return table

    def lens(self, found: Lens) -> Table:
        """What the lens says after each layer. The first row is that of the embedding. Target in bold."""
        table = _table("layer", "likeliest", "", self.token(found.target.text), numbers={2, 3})
        rows = [row for row in found.rows if row.after != "attn"]
        for index in self._telling([(row.places[-1].next, row.top[0].probability) for row in rows]):
            if index is None:
                table.add_row(self._gap)
                continue
            row = rows[index]
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
        rows = list(enumerate(found.tokens))
        if self.screen:
            rows.sort(key=lambda pair: -abs(pair[1].integrated_gradients))
        for place, row in self._first(rows):
            table.add_row(self.at(place, row.text), _signed(row.integrated_gradients), _signed(row.gradient_x_input))
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

    def patching(self, found: Patching, prompt: Sequence[int]) -> Iterator[Table]:
        """Before each layer the place that carries most of the difference; and the heads that carry most of it."""
        table = _table("before layer", "difference is at", "share", numbers={2})
        for layer in self._telling(found.stream):
            if layer is None:
                table.add_row(self._gap)
                continue
            stream = found.stream[layer]
            place = max(range(len(stream)), key=stream.__getitem__)
            table.add_row(str(layer), self.at(place, show(prompt[place])), f"{stream[place]:.2f}")
        yield table
        table = _table("patched head", "share", numbers={1})
        heads = {f"{layer}.{head}": share for layer, row in enumerate(found.heads) for head, share in enumerate(row)}
        for name in sorted(heads, key=lambda name: -abs(heads[name]))[: STRONGEST if self.screen else None]:
            table.add_row(name, f"{heads[name]:.2f}")
        yield table

    def compared(self, found: Compared) -> Iterator[Table]:
        """Three tables: what the second model changes in the next token, the lens, and what the parts add."""
        largest = self._first(sorted(found.next, key=lambda row: -abs(row.after - row.before)))
        if largest:
            rows = [Difference(self.token(row.name), row.before, row.after) for row in largest]
            yield self._before_and_after("next token", rows, percent)
        layers = [row for row in found.lens if not row.name.startswith("attn")]
        if layers:
            every = [
                Difference(row.name.removeprefix("mlp."), math.exp(row.before), math.exp(row.after)) for row in layers
            ]
            chosen = self._telling([(row.before, row.after) for row in every])
            shown = [None if index is None else every[index] for index in chosen]
            yield self._before_and_after(f"layer, {self.token(found.target.text)}", shown, percent)
        parts = sorted(found.attribution, key=lambda row: -abs(row.after - row.before))
        if parts:
            yield self._before_and_after("adds", self._first(parts), _signed)

    def _before_and_after(self, title: str, rows: Sequence[Difference | None], spell: Callable[[float], str]) -> Table:
        table = _table(title, "before", "after", numbers={1, 2})
        for row in rows:
            if row is None:
                table.add_row(self._gap)
            else:
                table.add_row(row.name, spell(row.before), spell(row.after))
        return table

    def _first(self, rows: Sequence[Row]) -> Sequence[Row]:
        return rows[: self.rows] if self.screen else rows

    def _later(self, rows: Sequence[Row]) -> Sequence[Row]:
        return rows[self.rows :] if self.screen else ()

    def _telling(self, rows: Sequence[Sequence[float]]) -> Sequence[int | None]:
        """The indices of the rows of numbers that a table shows, and None in place of rows that it leaves out."""
        return telling_rows(rows, self.rows if self.screen else len(rows))

    @property
    def _gap(self) -> str:
        """What stands in place of rows that are left out."""
        return "…" if self.blocks else "..."


def _table(title: str, *headings: str, numbers: Collection[int] = ()) -> Table:
    """An empty table. The columns `numbers` are aligned on the right; on a narrow terminal, only the others wrap."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(Text(title, "bold not dim"), overflow="fold")
    for column, heading in enumerate(headings, 1):
        is_number = column in numbers
        table.add_column(Text(heading), no_wrap=is_number, justify="right" if is_number else "left", overflow="fold")
    return table


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # + 0.0: not -0.00
