"""The summary of `gpt2 explain`: tables side by side on a terminal, one below the other in a pipe."""

from collections.abc import Iterator

from rich.console import Console as RichConsole
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gpt2cli.cli.environment import current
from gpt2cli.cli.terminal import terminal, visible, visible_line
from gpt2cli.cli.views.insight_tables import Tables
from gpt2cli.cli.views.surprisal import legend, prompt_lines
from gpt2cli.counted import counted
from gpt2cli.insight.explanation import Explanation
from gpt2cli.insight.findings import Ablation, Attribution, Compared, Heads, Lens, Next, Patching, Saliency, Tokens

GAP = 4
"""Columns between two tables that stand side by side."""
UNBOUNDED = 10_000
"""More columns than any table has."""
FLAGS = {"temperature": "--temp", "top_k": "--top-k", "top_p": "--top-p", "min_p": "--min-p"}


def show_explanation(explanation: Explanation) -> None:
    """Print the summary. Control characters in texts are spelled out."""
    stdout = current().stdout
    screen = stdout.isatty()
    out = terminal(stdout, None if screen else UNBOUNDED)
    tables = Tables(screen, out.encoding.startswith("utf"))
    out.print(_title(explanation, tables), soft_wrap=not screen)
    if tokens := explanation.get(Tokens):
        if screen:
            for line in prompt_lines(tokens.rows, out.width):
                out.print(line)
        else:
            out.print()
            out.print(tables.prompt(tokens))
    for row in _rows(out, [*_all_tables(explanation, tables)]) if screen else _all_tables(explanation, tables):
        out.print()
        out.print(row)
    out.print()
    for word, sentence in _reading(explanation):
        _print_sentence(out, word, sentence, screen)


def _title(explanation: Explanation, tables: Tables) -> Text:
    count = counted(len(explanation.ids), "token")
    foil = f" rather than {tables.token(explanation.foil.text)}" if explanation.foil else ""
    without = f" · without {', '.join(explanation.ablated)}" if explanation.ablated else ""
    said = f" · {count}{without} · why {tables.token(explanation.target.text)}{foil} next"
    return Text.assemble((visible_line(explanation.model), "bold"), (said, "dim"))


def _all_tables(explanation: Explanation, tables: Tables) -> Iterator[Table]:
    if following := explanation.get(Next):
        yield tables.next(following)
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
        yield tables.patching(patching, explanation.ids)
    if compared := explanation.get(Compared):
        yield tables.differences(f"next, in {visible_line(compared.model)}", compared.next, percent=True)
        yield tables.differences("adds, head or MLP", compared.attribution, percent=False)


def _rows(out: RichConsole, tables: list[Table]) -> Iterator[Table]:
    """The tables, two side by side where both fit into the terminal's width."""
    unbounded = out.options.update_width(UNBOUNDED)
    widths = [out.measure(table, options=unbounded).maximum for table in tables]
    number = 0
    while number < len(tables):
        if number + 1 < len(tables) and widths[number] + GAP + widths[number + 1] <= out.width:
            pair = Table.grid(padding=(0, GAP, 0, 0))
            pair.add_row(tables[number], tables[number + 1])
            yield pair
            number += 2
        else:
            yield tables[number]
            number += 1


def _reading(explanation: Explanation) -> Iterator[tuple[str, Text | str]]:
    """For each part, how to read its numbers, and what they do not prove."""
    if explanation.get(Tokens):
        yield "surprise", Text.assemble("in bits: 1 is a coin toss, 10 is one of 1,000 (", legend(), ")")
    if following := explanation.get(Next):
        given = " ".join(f"{FLAGS[name]} {value:g}" for name, value in following.settings.items() if name in FLAGS)
        yield "sampled", f"what `generate` draws from, with {given}"
    if explanation.get(Lens):
        yield "layers", "the last norm and head, too early: a layer need not hold such words"
    if explanation.get(Attribution):
        yield "adds", "to the logit, directly; what a part does through later parts is not in it"
    if explanation.get(Ablation):
        yield "without", "the change if a part is removed; others may make up for it, so 0 proves nothing"
    if explanation.get(Heads):
        yield "attends", "labels from a repeated random text; where a head looks is not what it does"
    if explanation.get(Saliency):
        yield "moves it", "integrated gradients, from a prompt of zeros; other baselines give other shares"
    if explanation.get(Patching):
        yield "share", "of the difference that this value alone carries over; shares do not add up"


def _print_sentence(out: RichConsole, word: str, sentence: Text | str, screen: bool) -> None:
    line = Text.assemble((f"{word:<10}", ""), sentence if isinstance(sentence, Text) else (sentence, "dim"))
    out.print(line, soft_wrap=not screen)
