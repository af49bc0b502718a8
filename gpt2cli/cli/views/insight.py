"""The summary of `gpt2 explain`: tables side by side on a terminal, one below the other in a pipe."""

import math
from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gpt2cli.cli.environment import current
from gpt2cli.cli.terminal import terminal, trimmed, visible_line
from gpt2cli.cli.views.bar_chart import percent
from gpt2cli.cli.views.insight_legend import legend
from gpt2cli.cli.views.insight_tables import LEAST_ROWS, Tables
from gpt2cli.cli.views.surprisal import prompt_lines, ranges
from gpt2cli.counted import counted
from gpt2cli.insight.explanation import Explanation
from gpt2cli.insight.findings import Ablation, Attribution, Compared, Heads, Lens, Next, Patching, Saliency, Tokens

LEAST_GAP, GAP = 2, 6
"""Columns between tables that stand side by side: at least, and if there is room."""
WIDE = 100
"""Columns of a terminal that has room for long tokens."""
LONGEST_TOKEN = {False: 11, True: 20}
"""Columns of a token in a table, by whether the terminal is wide: with 11, two tables fit into 80 columns."""
UNBOUNDED = 10_000
"""More columns than any table has."""
MOST_NAMES = 4
"""Names of ablated parts in the title."""


def show_explanation(explanation: Explanation) -> None:
    """Print the summary. Control characters in texts are spelled out."""
    stdout = current().stdout
    screen = stdout.isatty()
    out = terminal(stdout, None if screen else UNBOUNDED)
    tables = Tables(screen, out.encoding.startswith("utf"), LONGEST_TOKEN[out.width >= WIDE])
    summary = _summary(out, explanation, tables)
    if screen:
        spare = out.height - 1 - len(out.render_lines(Group(*summary)))  # below it is the line of the next command
        bands = sum(isinstance(each, Table) for each in summary)
        tables = replace(tables, rows=LEAST_ROWS + max(0, spare // max(1, bands)))
        summary = _summary(out, explanation, tables)
    with trimmed(out):
        out.print(Group(*summary))


def _summary(out: RichConsole, explanation: Explanation, tables: Tables) -> list[RenderableType]:
    """The headline, the prompt, the tables and the legend, with empty lines between them."""
    found = [*_all_tables(explanation, tables)]
    summary: list[RenderableType] = [_title(explanation), _headline(explanation, tables)]
    if tokens := explanation.get(Tokens):
        if tables.screen:
            heading = Text.assemble(("tokens, surprisal in bits (10 is 1 in 1,000): ", "dim"), ranges())
            summary += ["", heading, *prompt_lines(tokens.rows, out.width)]
        else:
            found.insert(0, tables.prompt(tokens))
    for row in _side_by_side(out, found) if tables.screen else found:
        summary += ["", row]
    words = legend(explanation, tables)
    return [*summary, "", words] if words.row_count else summary


def _title(explanation: Explanation) -> Text:
    names = explanation.ablated[:MOST_NAMES]
    more = len(explanation.ablated) - len(names)
    without = f" · without {', '.join(names)}{f' and {more} more' if more else ''}" if names else ""
    said = f" · {counted(len(explanation.ids), 'token')}{without}"
    return Text.assemble((visible_line(explanation.model), "bold"), (said, "dim"))


def _headline(explanation: Explanation, tables: Tables) -> Text:
    """The target, the foil, and the model's first choice, with their probabilities."""
    top = following.top if (following := explanation.get(Next)) else ()
    probabilities = {choice.id: choice.probability for choice in top}
    target, foil = explanation.target, explanation.foil
    first = top[0] if top else None

    def named(text: str, id: int) -> str:
        notes = [percent(probabilities[id])] if id in probabilities else []
        notes += ["the model's 1st choice"] if first and id == first.id else []
        return tables.token(text) + (f" ({', '.join(notes)})" if notes else "")

    said = f"explained: {named(target.text, target.id)}"
    if foil is not None:
        said += f" rather than {named(foil.text, foil.id)}"
        if {target.id, foil.id} <= probabilities.keys():
            said += f": {math.log(probabilities[target.id] / probabilities[foil.id]):+.2f} logits"
    if first and first.id not in (target.id, foil and foil.id):
        said += f"; the model's 1st choice is {tables.token(first.text)} ({percent(first.probability)})"
    return Text(said)


def _all_tables(explanation: Explanation, tables: Tables) -> Iterator[Table]:
    if following := explanation.get(Next):
        yield tables.next(following, {each.id for each in (explanation.target, explanation.foil) if each})
    if lens := explanation.get(Lens):
        yield tables.lens(lens)
    attribution, ablation = explanation.get(Attribution), explanation.get(Ablation)
    heads = explanation.get(Heads)
    if attribution or ablation:
        yield tables.parts(attribution, ablation, heads)
    if saliency := explanation.get(Saliency):
        yield tables.saliency(saliency)
    if heads and not (attribution or ablation):
        yield tables.heads(heads)
    if patching := explanation.get(Patching):
        yield from tables.patching(patching, explanation.ids)
    if compared := explanation.get(Compared):
        yield from tables.compared(compared)


def _side_by_side(out: RichConsole, tables: list[Table]) -> Iterator[Table]:
    """The tables, as many side by side as fit into the terminal's width."""
    unbounded = out.options.update_width(UNBOUNDED)
    widths = [out.measure(table, options=unbounded).maximum for table in tables]
    first = 0
    while first < len(tables):
        end = first + 1
        while end < len(tables) and sum(widths[first : end + 1]) + LEAST_GAP * (end - first) <= out.width:
            end += 1
        if end == first + 1:
            yield tables[first]
        else:
            gap = (out.width - sum(widths[first:end])) // (end - first - 1)
            row = Table.grid(padding=(0, min(gap, GAP), 0, 0), pad_edge=False)
            row.add_row(*tables[first:end])
            yield row
        first = end
