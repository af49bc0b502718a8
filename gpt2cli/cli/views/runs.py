"""The table of runs that `gpt2 runs` prints."""

from datetime import datetime
from pathlib import Path

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from gpt2cli.cli.environment import current
from gpt2cli.cli.terminal import terminal, visible_line
from gpt2cli.training.run_list import RunInfo

TITLES = ("run", "state", "steps", "best val. loss", "size", "started", "model", "data")
ON_THE_RIGHT = ("steps", "best val. loss", "size")
UNFOLDED = 10_000
"""Columns for a table in a pipe, so that no cell is folded."""
GAP = 2
"""Columns between two columns of the table."""


def print_runs(runs: list[RunInfo]) -> None:
    """Print a line for each run or, on a terminal that is too narrow for that, its name and a paragraph."""
    rows = [[visible_line(cell) for cell in _cells(run)] for run in runs]
    widths = [max(map(len, column)) for column in zip(TITLES, *rows, strict=True)]
    stdout = current().stdout
    console = terminal(stdout) if stdout.isatty() else terminal(stdout, width=UNFOLDED)
    if sum(widths) + GAP * (len(widths) - 1) <= console.width:
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
        for title in TITLES:
            table.add_column(title, justify="right" if title in ON_THE_RIGHT else "left", no_wrap=True)
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
        return
    for run in runs:
        console.print(Text(visible_line(run.name), "bold"), soft_wrap=True)
        for line in _wrapped([visible_line(part) for part in _parts(run)], console.width - GAP):
            console.print(Text(" " * GAP + line), soft_wrap=True)


def _cells(run: RunInfo) -> list[str]:
    """What the columns show, in the order of TITLES."""
    loss = "" if run.best_val_loss is None else f"{run.best_val_loss:.3f}"
    size = decimal(run.bytes)
    return [run.name, run.state, _steps(run, "/"), loss, size, _started(run), _short(run.model), _short(run.data)]


def _parts(run: RunInfo) -> list[str]:
    """The same in words, without the name."""
    loss = [] if run.best_val_loss is None else [f"best validation loss {run.best_val_loss:.3f}"]
    what = f"{_short(run.model)} on {_short(run.data)}"
    return [run.state, f"{_steps(run, ' of ')} steps", *loss, decimal(run.bytes), what, _started(run)]


def _steps(run: RunInfo, of: str) -> str:
    return f"{run.steps:,}{of}{'?' if run.total_steps is None else f'{run.total_steps:,}'}"


def _started(run: RunInfo) -> str:
    return datetime.fromisoformat(run.started_at).strftime("%Y-%m-%d %H:%M")


def _short(place: str) -> str:
    """The last part of a path. Names stay as they are."""
    return Path(place).name if Path(place).is_absolute() else place


def _wrapped(parts: list[str], width: int) -> list[str]:
    """The parts in lines of at most this width, each part in one line."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 3 <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return lines
