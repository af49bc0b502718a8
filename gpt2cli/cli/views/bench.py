"""The progress of `gpt2 bench` on stderr, and the measured speeds on stdout."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from rich.console import Console as RichConsole
from rich.progress import TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from gpt2cli.bench import Speed
from gpt2cli.cli.environment import current
from gpt2cli.cli.terminal import Console, terminal, trimmed, visible
from gpt2cli.cli.views.bar_chart import bar
from gpt2cli.cli.views.progress import ProgressBars
from gpt2cli.config import BenchConfig
from gpt2cli.counted import counted

WIDEST_BAR = 40
"""Columns of the longest bar in a chart."""


@contextmanager
def showing_runs(console: Console, precision: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Yields the function to call after each run. `total` is the number of runs, or None if it is not known."""
    runs = count(1)
    with ProgressBars(console, [TimeElapsedColumn()]) as bars:
        bars.update(f"measuring {precision}", 0, total)
        yield lambda: bars.update(f"measuring {precision}", next(runs), total)


def show_speed(speed: Speed, config: BenchConfig) -> None:
    """Print the speed and the memory of one precision."""
    console = _titled(f"{_named(speed.model)} in {speed.precision}", speed, config)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", style="bold", no_wrap=True)
    table.add_column()
    limit, share = speed.roofline_tok_s, f"{speed.roofline_fraction:.0%}"
    table.add_row("reads", f"{speed.prefill_tok_s:,.0f}", "tokens/s")
    table.add_row("writes", f"{speed.decode_tok_s:,.1f}", f"tokens/s, {share} of what the memory allows")
    table.add_row("", "", _chart_bar(console, speed.decode_tok_s, limit, limit, 32))
    table.add_row("limit", f"{limit:,.1f}", "tokens/s:")
    bandwidth = f"{speed.memory_bandwidth_gb_s:,.1f} GB/s"
    table.add_row("", "", f"{_megabytes(speed)} MB of weights per token, at {bandwidth}")
    table.add_row("loads in", f"{speed.load_s:,.2f}", "s")
    table.add_row("takes", f"{speed.peak_rss_mb:,.0f}", "MB of memory at the peak")
    with trimmed(console):
        console.print(table)


def show_comparison(speeds: list[Speed], config: BenchConfig) -> None:
    """Print a table of all precisions, and a chart of their decoding speeds and the limits of these."""
    console = _titled(_named(speeds[0].model), speeds[0], config)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True)
    for heading in ("reads tokens/s", "writes tokens/s", "of the limit", "MB per token", "loads in s", "peak MB"):
        table.add_column(heading, justify="right", min_width=max(map(len, heading.split())))
    for speed in speeds:
        read, written = f"{speed.prefill_tok_s:,.0f}", f"{speed.decode_tok_s:,.1f}"
        share, memory, loading = f"{speed.roofline_fraction:.0%}", f"{speed.peak_rss_mb:,.0f}", f"{speed.load_s:,.2f}"
        table.add_row(speed.precision, read, written, share, _megabytes(speed), loading, memory)
    console.print(table)
    console.print()
    console.print(Text("tokens/s written, of what the memory allows", style="dim"))
    chart = Table.grid(padding=(0, 2, 0, 0))
    highest = max(max(speed.roofline_tok_s, speed.decode_tok_s) for speed in speeds)
    width = max(8, min(WIDEST_BAR, console.width - 28))
    for speed in speeds:
        drawn = _chart_bar(console, speed.decode_tok_s, speed.roofline_tok_s, highest, width)
        chart.add_row(speed.precision, drawn, f"{speed.decode_tok_s:,.1f} of {speed.roofline_tok_s:,.1f}")
    console.print(chart)


def _titled(name: str, speed: Speed, config: BenchConfig) -> RichConsole:
    """Print the title: the name, the threads, the token counts and the repeats. Returns the console for the rest."""
    console = terminal(current().stdout)
    tokens = f"{config.prompt_tokens:,} + {config.new_tokens:,} tokens"
    how = [counted(speed.threads, "thread"), tokens, f"median of {config.repeats}"]
    console.print(Text.assemble((name, "bold"), ("".join(f" · {part}" for part in how), "dim")))
    console.print()
    return console


def _named(model: str) -> str:
    """The model's name as it was given. An existing absolute path is reduced to its last part."""
    path = Path(model)
    return visible(path.resolve().name if path.exists() and path.is_absolute() else model)


def _megabytes(speed: Speed) -> str:
    megabytes = speed.weight_bytes_per_token / 1e6
    return f"{megabytes:,.0f}" if megabytes >= 10 else f"{megabytes:,.1f}"


def _chart_bar(console: RichConsole, value: float, limit: float, highest: float, width: int) -> Text:
    """A bar for `value`, followed by a dim bar up to `limit`. `highest` has `width` columns."""
    blocks = console.encoding.startswith("utf")
    reached = bar(value / highest, width, blocks)
    missing = max(0, round(limit / highest * width) - len(reached))
    return Text.assemble((reached, "cyan"), (("░" if blocks else "-") * missing, "dim"))
