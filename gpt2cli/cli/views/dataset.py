"""The summary of a dataset for `gpt2 prepare-alpaca`: sizes, lengths of records, and an example."""

from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text
from torch import Tensor

from gpt2cli.cli.environment import current
from gpt2cli.cli.terminal import terminal, visible, visible_line
from gpt2cli.cli.views.bar_chart import bar
from gpt2cli.data.splits import Splits
from gpt2cli.data.turns import template_for
from gpt2cli.tokenizer import END_OF_TEXT

BUCKETS = 8
BAR = 40
"""Characters of the longest bar in the histogram."""


def show_summary(splits: Splits, directory: Path) -> None:
    """Print the summary on stdout, with colors on a terminal. Control characters in records are escaped."""
    console = terminal(current().stdout)
    lengths = torch.cat([part.lengths for part in splits.by_name().values()])
    console.print(sizes(splits))
    console.print(Text(fate(splits)), soft_wrap=True)
    if cut := cut_conversations(splits):
        console.print(Text(cut), soft_wrap=True)
    console.print()
    noun = splits.noun
    console.print(Text(f"{noun} length in tokens: median {int(lengths.median()):,}, longest {int(lengths.max()):,}"))
    console.print(histogram(lengths, blocks=console.encoding.startswith("utf")))
    console.print()
    show_example(console, splits)
    console.print()
    console.print(Text(visible_line(str(directory)), style="bold"), soft_wrap=True)


def sizes(splits: Splits) -> Table:
    """A table of the records and tokens of each split, and of the turns of conversations."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    noun = splits.noun
    has_turns = noun == "conversation"
    for title in ("", f"{noun}s", *["turns"] * has_turns, "tokens", "of them learned"):
        table.add_column(title, justify="right" if title else "left")
    for name, part in splits.by_name().items():
        turns = sum(len(record.exchanges) for record in splits.records[name]) if has_turns else 0
        counts = (len(part), *[turns] * has_turns, part.n_tokens, part.n_targets)
        table.add_row(name, *(f"{count:,}" for count in counts))
    return table


def fate(splits: Splits) -> str:
    """How many of the file's records were kept, cut, dropped and skipped, in one line."""
    counts = splits.info["counts"]
    window = f"{splits.info['max_length']:,} tokens"
    told = {
        "truncated": f"cut to {window}",
        "dropped_empty": "dropped for want of an output",
        "dropped_long": f"dropped, their prompts alone filling {window}",
        "bad": "malformed and skipped",
        "left_out": "left out of the subset",
    }
    noun = splits.noun
    turns = f", with {counts['turns']:,} turns" if noun == "conversation" else ""
    return " · ".join([f"{counts['kept']:,} of {counts['records']:,} {noun}s kept{turns}", *_counted(splits, told)])


def cut_conversations(splits: Splits) -> str:
    """How many conversations were kept without all of their turns, in one line; empty if there are none."""
    told = {
        "shortened": f"without their first turns, to fit {splits.info['max_length']:,} tokens",
        "unanswered": "without their last question, which has no answer",
    }
    return " · ".join(_counted(splits, told))


def _counted(splits: Splits, told: Mapping[str, str]) -> list[str]:
    """The counts that are not 0, each with its words. What an earlier version prepared lacks those of conversations."""
    counts = splits.info["counts"]
    return [f"{counts[name]:,} {what}" for name, what in told.items() if counts.get(name)]


def histogram(lengths: Tensor, blocks: bool) -> Table:
    """A histogram of the records' lengths. Without `blocks`, its bars are of ASCII characters."""
    width = -(-(int(lengths.max()) + 1) // (BUCKETS * 8)) * 8
    counts: list[int] = torch.bincount(lengths // width).tolist()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(justify="right", style="dim")
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(justify="right", style="dim")
    for i, count in enumerate(counts):
        length = bar(count / max(counts), BAR, blocks)
        table.add_row(f"{i * width:,}-{(i + 1) * width - 1:,}", length, f"{count:,}")
    return table


def show_example(console: RichConsole, splits: Splits) -> None:
    """Print one record of at most median length, prompts and ends of text dim and answers bright."""
    lengths = splits.train.lengths
    record = splits.records["train"][int((lengths <= lengths.median()).nonzero()[0])]
    template = template_for(record, splits.template) if splits.template else None
    example = Text()
    for number, each in enumerate(record.exchanges):
        before = f"{END_OF_TEXT}\n" if number else ""
        prompt = template.prompt(each.instruction, each.input) if template else ""
        example.append(visible(before + prompt), "dim").append(visible(each.output), "bold")
    # in a pipe the lines stay as they are
    console.print(example, soft_wrap=not console.is_terminal)
