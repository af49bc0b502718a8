"""The summary of `gpt2 explain`: tables side by side on a terminal, one below the other in a pipe."""

from collections.abc import Iterator

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from gpt2cli.cli.environment import current
from gpt2cli.cli.terminal import terminal, trimmed, visible_line
from gpt2cli.cli.views.insight_tables import Tables
from gpt2cli.cli.views.surprisal import legend, prompt_lines
from gpt2cli.counted import counted
from gpt2cli.insight.explanation import Explanation
from gpt2cli.insight.findings import Ablation, Attribution, Compared, Heads, Lens, Next, Patching, Saliency, Tokens

LEAST_GAP, GAP = 2, 6
"""Columns between two tables that stand side by side: at least, and if there is room."""
WIDE = 100
"""Columns of a terminal that has room for long tokens."""
LONGEST_TOKEN = {False: 11, True: 20}
"""Columns of a token in a table, by whether the terminal is wide: with 11, two tables fit into 80 columns."""
UNBOUNDED = 10_000
"""More columns than any table has."""
FLAGS = {"temperature": "--temp", "top_k": "--top-k", "top_p": "--top-p", "min_p": "--min-p"}
SENTENCES = (
    (Lens, "layer", "the last norm and head, applied early (logit lens): an approximation"),
    (Attribution, "adds", "directly to the logit, or to target minus foil; not through later parts"),
    (Ablation, "without", "the change if the part is removed; other parts can make up for it"),
    (Heads, "attends", "measured on repeated random tokens; attention proves no effect"),
    (Saliency, "moves it", "integrated gradients: shares of the logit, relative to zero inputs"),
    (Patching, "share", "of the difference of the prompts that this value alone brings back"),
)
"""For each part, a word of its table, what the numbers are, and what they do not prove."""


def show_explanation(explanation: Explanation) -> None:
    """Print the summary. Control characters in texts are spelled out."""
    stdout = current().stdout
    screen = stdout.isatty()
    out = terminal(stdout, None if screen else UNBOUNDED)
    tables = Tables(screen, out.encoding.startswith("utf"), LONGEST_TOKEN[out.width >= WIDE])
    with trimmed(out):
        _print_summary(out, explanation, tables)


def _print_summary(out: RichConsole, explanation: Explanation, tables: Tables) -> None:
    out.print(_title(explanation, tables))
    found = [*_all_tables(explanation, tables)]
    if tokens := explanation.get(Tokens):
        if tables.screen:
            out.print(Text("\n").join(prompt_lines(tokens.rows, out.width)))
        else:
            found.insert(0, tables.prompt(tokens))
    for row in _side_by_side(out, found) if tables.screen else found:
        out.print()
        out.print(row)
    words = Table.grid(padding=(0, 2, 0, 0))
    for word, sentence in _reading(explanation):
        words.add_row(word, sentence)
    if words.row_count:
        out.print()
        out.print(words)


def _title(explanation: Explanation, tables: Tables) -> Text:
    count = counted(len(explanation.ids), "token")
    foil = f" · foil: {tables.token(explanation.foil.text)}" if explanation.foil else ""
    without = f" · without {', '.join(explanation.ablated)}" if explanation.ablated else ""
    said = f" · {count}{without} · target: {tables.token(explanation.target.text)}{foil}"
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
        yield from tables.compared(compared)


def _side_by_side(out: RichConsole, tables: list[Table]) -> Iterator[Table]:
    """The tables, two side by side where both fit into the terminal's width."""
    unbounded = out.options.update_width(UNBOUNDED)
    widths = [out.measure(table, options=unbounded).maximum for table in tables]
    number = 0
    while number < len(tables):
        room = out.width - sum(widths[number : number + 2])
        if number + 1 < len(tables) and room >= LEAST_GAP:
            pair = Table.grid(padding=(0, min(room, GAP), 0, 0), pad_edge=False)
            pair.add_row(tables[number], tables[number + 1])
            yield pair
            number += 2
        else:
            yield tables[number]
            number += 1


def _reading(explanation: Explanation) -> Iterator[tuple[str, Text]]:
    """For each part, a word of its table, what the numbers are, and what they do not prove."""
    if explanation.get(Tokens):
        said = "bits, -log2 of a token's probability; 10 is 1 in 1,000: "
        yield "surprise", Text.assemble((said, "dim"), legend())
    if following := explanation.get(Next):
        yield "sampled", Text(f"the probabilities that generate draws from, with {_flags(following)}", "dim")
    if compared := explanation.get(Compared):
        said = f"{visible_line(compared.model)}; the numbers do not say which example changed it"
        yield "after", Text(said, "dim")
    for kind, word, sentence in SENTENCES:
        finding = explanation.get(kind)
        if finding and not (isinstance(finding, Heads) and not any(row.label for row in finding.rows)):
            yield word, Text(sentence, "dim")


def _flags(following: Next) -> str:
    """The options that change the distribution."""
    off = {"top_k": 0, "top_p": 1, "min_p": 0}
    settings = following.settings
    return " ".join(f"{flag} {settings[name]:g}" for name, flag in FLAGS.items() if settings[name] != off.get(name))
