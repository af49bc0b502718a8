"""The progress of `gpt2 evaluate` on stderr, and its results on stdout."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console as RichConsole
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gpt2cli.cli.describe import shortened
from gpt2cli.cli.environment import current
from gpt2cli.cli.terminal import Console, terminal, visible
from gpt2cli.cli.views.progress import ProgressBars
from gpt2cli.counted import counted
from gpt2cli.evaluation.engine import Advanced
from gpt2cli.evaluation.results import ARROWS, Evaluation, Metric, RecordResult
from gpt2cli.exchanges import Exchange

EXAMPLES = 3
"""The number of records that are shown below the figures."""
QUESTIONS = 5
"""The number of questions that are shown if there are no figures."""
EARLIER = 2
"""The number of earlier exchanges of a conversation that are shown before its last question."""
LONGEST_TEXT = 200
"""Characters of an instruction or an answer."""
WIDEST_NAME = 24
"""Characters of a model's name in a table."""
UNITS = {"scoring": "tokens read", "answering": "answers"}
STYLES = {"better": "green", "worse": "red"}
IN_ASCII = str.maketrans({"\N{MINUS SIGN}": "-", "↑": "^", "↓": "v"})
"""How figures are written in an encoding that may not have these characters."""
UNBOUNDED = 10_000
"""More columns than any table has."""


class EvaluationProgress(ProgressBars):
    """A bar for each model and each of its two stages."""

    def advance(self, event: Advanced) -> None:
        """Show one event."""
        task = f"{event.stage} {event.model}"
        if event.done and task not in self._tasks:
            self._console.note(f"{event.model}: continuing an interrupted run")
        self.update(
            task,
            event.done,
            event.total,
            description=f"{event.stage} {_named(event.model)}",
            line=f"{event.model}: {event.done:,} of {event.total:,} {UNITS[event.stage]}",
        )


def show_evaluation(console: Console, evaluation: Evaluation, report: Path | None) -> None:
    """Print the figures and the answers to a few records. `report` is the file with all answers, if there is one.

    Control characters in texts of data and models are spelled out.
    """
    out = terminal(current().stdout)
    _print_line(out, visible(evaluation.summary), "")
    if evaluation.metrics:
        _show_figures(out, evaluation)
    examples = EXAMPLES if evaluation.metrics else QUESTIONS
    for record in evaluation.answered[:examples]:
        out.print()
        _show_earlier(out, record)
        _print_text(out, "", _task(record), "bold")
        if record.reference is not None:
            _print_text(out, "reference", shortened(record.reference, LONGEST_TEXT), "dim")
        for model, answer in zip(evaluation.models, record.answers, strict=True):
            _print_text(out, _named(model.model), shortened(answer.text, LONGEST_TEXT) or "(nothing)", "")
    if len(evaluation.answered) > examples:
        where = f"{report} has all" if report else "--out report.html writes all"
        console.note(f"these are {examples} of {counted(len(evaluation.answered), evaluation.noun)}: {where}")


def _show_earlier(out: RichConsole, record: RecordResult) -> None:
    """Print what stands before the last question of a conversation: its system text, and the newest exchanges."""
    if record.system:
        _print_text(out, "system", shortened(record.system, LONGEST_TEXT), "dim")
    if len(record.earlier) > EARLIER:
        _print_line(out, f"({counted(len(record.earlier) - EARLIER, 'earlier turn')})", "dim")
    for exchange in record.earlier[-EARLIER:]:
        _print_text(out, "", _task(exchange), "")
        _print_text(out, "answer", shortened(exchange.output, LONGEST_TEXT), "dim")


def _task(asked: Exchange | RecordResult) -> str:
    return shortened(" / ".join(filter(None, (asked.instruction, asked.input))), LONGEST_TEXT)


def _print_text(out: RichConsole, label: str, text: str, style: str) -> None:
    line = Text.assemble((visible(f"{label}: ") if label else "", "dim"), (visible(text), style))
    if out.is_terminal:
        out.print(Padding(line, (0, 0, 0, 2 if label else 0), expand=False))
    else:
        out.print(Text("  " if label else "") + line, soft_wrap=True)


def _show_figures(out: RichConsole, evaluation: Evaluation) -> None:
    """Print the figures of all models in one table, else in a table for each comparison, else line by line.

    The first of these is taken that the terminal is wide enough for.
    """
    models = range(len(evaluation.models))
    comparisons = [[0, i] for i in models[1:]]
    for groups, gap in (([[*models]], 2), (comparisons, 2), (comparisons, 1)):
        tables = [figures(evaluation, group, _symbols(out), gap) for group in groups]
        unbounded = out.options.update_width(UNBOUNDED)
        if tables and all(out.measure(table, options=unbounded).maximum <= out.width for table in tables):
            for group, table in zip(groups, tables, strict=True):
                out.print()
                if len(group) > 1:
                    _print_line(out, _title(evaluation, group), "bold")
                out.print(table)
            break
    else:
        for i in models:
            out.print()
            _print_line(out, _title(evaluation, [0, i] if i else [0]), "bold")
            for line in stacked(evaluation, i, _symbols(out)):
                out.print(line)
    out.print()
    for sentence in _legend(evaluation):
        _print_line(out, sentence.translate(_symbols(out)), "dim")
    if evaluation.caution:
        _print_line(out, f"{evaluation.caution[0].upper()}{evaluation.caution[1:]}.", "")


def _title(evaluation: Evaluation, group: Sequence[int]) -> str:
    """The name of a model, or what the models of the group are compared with."""
    first, *others = (_named(evaluation.models[i].model) for i in group)
    return visible(f"{' and '.join(others)} compared with {first}" if others else first)


def _print_line(out: RichConsole, line: str, style: str) -> None:
    """Print a line. A terminal wraps it at spaces; elsewhere it stays one line."""
    out.print(Text(line, style=style), soft_wrap=not out.is_terminal)


def _symbols(out: RichConsole) -> dict[int, str]:
    """The characters to replace in figures."""
    return {} if out.encoding.startswith("utf") else IN_ASCII


def figures(evaluation: Evaluation, group: Sequence[int], symbols: dict[int, str], gap: int) -> Table:
    """A row for each metric and a column for each model of the group, which is given by indices.

    After each model but the first come its difference from the first, the interval of the difference, and a verdict.
    There are `gap` spaces between two columns.
    """
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True)
    for number, i in enumerate(group):
        name = Text(visible(_named(evaluation.models[i].model)))
        table.add_column(name, justify="right", no_wrap=True)
        if number:
            table.add_column("difference", no_wrap=True)
            table.add_column("95 % interval", no_wrap=True, style="dim")
            table.add_column("", no_wrap=True)
    compared = [evaluation.models[i] for i in group[1:] or group]
    for metric in evaluation.metrics:
        if not any(metric.key in model.figures for model in compared):
            continue
        cells = [_label(metric)]
        for number, i in enumerate(group):
            cells += _cells(evaluation, metric, i)[: 4 if number else 1]
        table.add_row(*(Text(cell.translate(symbols), style=STYLES.get(cell, "")) for cell in cells))
    return table


def stacked(evaluation: Evaluation, model: int, symbols: dict[int, str]) -> Iterator[Text]:
    """The figures of one model in narrow lines: the figure of each metric, then its difference from the first model."""
    rows = [(_label(metric), *_cells(evaluation, metric, model)) for metric in evaluation.metrics]
    labels, values = (max(len(row[column]) for row in rows) for column in (0, 1))
    for label, value, difference, interval, verdict in rows:
        if value:
            yield Text(f"{label:<{labels}}  {value:>{values}}".translate(symbols))
        if difference:
            change = f"{difference} [{interval}]" if interval else difference
            yield Text.assemble(
                "  ", (verdict, STYLES.get(verdict, "")), ": " * bool(verdict), change.translate(symbols)
            )


def _label(metric: Metric) -> str:
    return f"{metric.label} {ARROWS[metric.better]}".rstrip()


def _cells(evaluation: Evaluation, metric: Metric, model: int) -> list[str]:
    """The figure of a model, its difference from the first model, the interval and the verdict."""
    result = evaluation.models[model]
    figure, change = result.figures.get(metric.key), result.differences.get(metric.key)
    value = metric.shown(figure.value) if figure else ""
    if change is None:
        return [value, "", "", ""]
    return [value, metric.shown_change(change.value), metric.shown_interval(change), metric.judged(change)]


def _legend(evaluation: Evaluation) -> Iterator[str]:
    yield "↑ higher is better, ↓ lower is better."
    if any(change.low is not None for model in evaluation.models for change in model.differences.values()):
        yield (
            "better, worse: the 95 % interval of the difference does not contain 0. "
            "unclear: it does, so the difference may be chance."
        )


def _named(model: str) -> str:
    """A model's name, shortened at its beginning, as the end of a path says more."""
    return model if len(model) <= WIDEST_NAME else "..." + model[3 - WIDEST_NAME :]
