"""The progress of `gpt2 evaluate` on stderr, and its results on stdout."""

from pathlib import Path

from rich.console import Console as RichConsole
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gpt2cli.cli.describe import counted, shortened
from gpt2cli.cli.environment import current
from gpt2cli.cli.terminal import Console, terminal, visible
from gpt2cli.cli.views.progress import ProgressBars
from gpt2cli.evaluation.bootstrap import Estimate
from gpt2cli.evaluation.engine import Advanced
from gpt2cli.evaluation.results import Evaluation, Metric

EXAMPLES = 3
"""The number of records that are shown below the figures."""
WIDEST_NAME = 24
"""Characters of a model's name in a table."""
UNITS = {"scoring": "tokens read", "answering": "answers"}


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
    out.print(Text(visible(headline(evaluation))), soft_wrap=True)
    out.print()
    out.print(figures(evaluation))
    if evaluation.caution:
        out.print(Text(evaluation.caution, style="dim"), soft_wrap=True)
    for record in evaluation.answered[:EXAMPLES]:
        out.print()
        task = " / ".join(filter(None, (record.instruction, record.input)))
        _print_text(out, "", shortened(task, 200), "bold")
        _print_text(out, "reference", shortened(record.reference, 200), "dim")
        for model, answer in zip(evaluation.models, record.answers, strict=True):
            _print_text(out, _named(model.model), shortened(answer.text, 200) or "(nothing)", "")
    if len(evaluation.answered) > EXAMPLES:
        where = f"{report} has all" if report else "--out report.html writes all"
        console.note(f"these are {EXAMPLES} of {counted(len(evaluation.answered), 'answer')}: {where}")


def _print_text(out: RichConsole, label: str, text: str, style: str) -> None:
    line = Text.assemble((visible(f"{label}: ") if label else "", "dim"), (visible(text), style))
    if out.is_terminal:
        out.print(Padding(line, (0, 0, 0, 2 if label else 0), expand=False))
    else:
        out.print(Text("  " if label else "") + line, soft_wrap=True)


def headline(evaluation: Evaluation) -> str:
    """The data and its size in one line."""
    split = "" if evaluation.split == "all" else f" ({evaluation.split})"
    predicted = evaluation.models[0].tokens
    tokens = "" if predicted is None else f", {counted(predicted, 'token')}"
    if evaluation.kind == "text":
        return f"{evaluation.data}: {counted(evaluation.records, 'text')}{tokens}"
    records = counted(evaluation.records, "record")
    answers = counted(len(evaluation.answered), "answer")
    return f"{evaluation.data}{split}: {records}{tokens and tokens + ' of responses'}, {answers}"


def figures(evaluation: Evaluation) -> Table:
    """A row for each metric, a column for each model, and a column for its difference from the first model."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    for number, model in enumerate(evaluation.models):
        table.add_column(Text(visible(_named(model.model))), justify="right", overflow="fold")
        if number:
            table.add_column("difference (95 %)", justify="left", style="dim")
    for metric in evaluation.metrics:
        cells = []
        for number, model in enumerate(evaluation.models):
            figure, change = model.figures.get(metric.key), model.differences.get(metric.key)
            cells.append(Text(metric.shown(figure.value) if figure else ""))
            if number:
                cells.append(_change(metric, change) if change else Text(""))
        table.add_row(metric.label, *cells)
    return table


def _change(metric: Metric, change: Estimate) -> Text:
    """The difference and its interval, in green or red if the interval does not contain 0."""
    text = metric.shown_change(change.value)
    if change.low is None or change.high is None:
        return Text(text)
    style = {1: "green", 0: "", -1: "red"}[metric.verdict(change)]
    low, high = (metric.shown_change(end, with_unit=False) for end in (change.low, change.high))
    return Text.assemble((text, style), f" [{low}, {high}]")


def _named(model: str) -> str:
    """A model's name, shortened at its beginning, as the end of a path says more."""
    return model if len(model) <= WIDEST_NAME else "..." + model[3 - WIDEST_NAME :]
