"""The legend of `gpt2 explain`: for each kind of number its part, as in --parts, and its unit."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from gpt2cli.cli.terminal import visible_line
from gpt2cli.cli.views.insight_tables import Tables
from gpt2cli.insight.explanation import Explanation
from gpt2cli.insight.findings import Ablation, Attribution, Compared, Heads, Lens, Next, Patching, Saliency, Tokens

FLAGS = {"temperature": "--temp", "top_k": "--top-k", "top_p": "--top-p", "min_p": "--min-p"}


def legend(explanation: Explanation, tables: Tables) -> Table:
    """A line for each part that was found: a word of its table, and a sentence."""
    words = Table.grid(padding=(0, 2, 0, 0))
    for word, sentence in _lines(explanation, tables):
        words.add_row(word, Text(sentence, "dim"))
    return words


def _lines(explanation: Explanation, tables: Tables) -> Iterator[tuple[str, str]]:
    get = explanation.get
    logits = "logits of target minus foil" if explanation.foil else "logits of the target"
    if get(Tokens) and not tables.screen:  # a screen has a heading above the tokens
        yield "surprisal", "tokens, bits: -log2 of a token's probability; 10 is 1 in 1,000"
    if following := get(Next):
        yield "sampled", f"next: what generate draws from, with {_flags(following)}"
    if compared := get(Compared):
        yield "before", f"{visible_line(explanation.model)}; after: {visible_line(compared.model)}"
    if get(Lens):
        yield "layer", "lens: the last norm and head, applied early; an approximation"
    if get(Attribution):
        yield "adds", f"attribution, {logits}: direct, not via later parts"
    if get(Ablation):
        unit = logits if explanation.foil else "nats of the target's log-probability"
        yield "without", f"ablation, {unit}; others can replace it"
    if (heads := get(Heads)) and any(row.label for row in heads.rows):
        yield "attends", "attention: on repeated random tokens; attention proves no effect"
    if get(Saliency):
        yield "moves it", f"saliency, {logits}: integrated gradients"
        yield "gradient", "saliency: gradient times input, a first approximation of it"
    if patching := get(Patching):
        here, there = f"{patching.clean:.2f}", f"{patching.corrupted:.2f}"
        yield "share", f"patching, {logits}: {there} with --against, {here} here"
        yield "", f"1 is a value that alone makes it {here} in the other prompt's pass"


def _flags(following: Next) -> str:
    """The options that change the distribution."""
    off = {"top_k": 0, "top_p": 1, "min_p": 0}
    settings = following.settings
    return " ".join(f"{flag} {settings[name]:g}" for name, flag in FLAGS.items() if settings[name] != off.get(name))
