"""The report of an evaluation: one HTML page."""

import math
from typing import NamedTuple

from gpt2cli import html_page
from gpt2cli.evaluation.bootstrap import Estimate
from gpt2cli.evaluation.results import ARROWS, Evaluation, Metric, RecordResult

CHARTED = ("perplexity", "bits_per_byte", "accuracy", "bleu", "chrf", "rouge_l", "bertscore", "ended")
CHART_WIDTH = 320
"""Units of the chart's own coordinates."""
LONGEST_NAME = 30
"""Characters of a model's name in a chart."""
SHORT = 1500
"""Characters of the earlier exchanges of a conversation. More are folded up until they are asked for."""
COLORS = 6
"""Models that have a colour in the style sheet."""


class Bar(NamedTuple):
    """One bar of a chart. Lengths and the ends of the interval are in the chart's units."""

    color: int
    name: str
    value: str
    length: str
    low: str | None
    high: str | None


class Chart(NamedTuple):
    """One metric of all models that have it, drawn and in words."""

    metric: Metric
    bars: list[Bar]
    described: str

    @property
    def tells_something(self) -> bool:
        """Whether any bar has an interval or differs from the others."""
        return any(bar.low for bar in self.bars) or len({bar.value for bar in self.bars}) > 1


def page(evaluation: Evaluation) -> str:
    """The whole page in HTML."""
    charts = [_chart(evaluation, metric) for metric in evaluation.metrics if metric.key in CHARTED]
    heading = _heading(evaluation)
    names = " ".join(filter(None, (word for i, before in heading for word in (before, evaluation.models[i].model))))
    values = {
        "evaluation": evaluation,
        "heading": heading,
        "title": f"{names} on {evaluation.data}",
        "arrows": ARROWS,
        "charts": [chart for chart in charts if chart.tells_something],
        "width": CHART_WIDTH,
        "count": f"{len(evaluation.answered):,}",
        "settings": ", ".join(f"{name} {value}" for name, value in evaluation.settings.items() if value is not None),
    }
    colors = _further_colors(len(evaluation.models))
    return html_page.render("report", values, {"fits_unfolded": _fits_unfolded}, further_style=colors)


def _further_colors(models: int) -> str:
    """Style rules for the models beyond COLORS. Their hues are a golden angle apart, so no two are alike."""
    hues = {i: round(i * 137.508) % 360 for i in range(COLORS, models)}
    return "".join(f".m{i} {{ color: hsl({hue} 55% 50%); fill: hsl({hue} 55% 50%); }}\n" for i, hue in hues.items())


def _heading(evaluation: Evaluation) -> list[tuple[int, str]]:
    """The models of the page's heading in its order: the index of each, and the words before it."""
    first, *others = range(len(evaluation.models))
    if evaluation.metrics:
        joined = [(i, "and" if number else "") for number, i in enumerate(others)]
        return [*joined, (first, "compared with" if others else "")]
    return [(first, "Answers of"), *((i, "and") for i in others)]


def _fits_unfolded(record: RecordResult) -> bool:
    """Whether what stands before the question of a conversation is short."""
    texts = (text for exchange in record.earlier for text in (exchange.instruction, exchange.input, exchange.output))
    return len(record.system) + sum(map(len, texts)) <= SHORT


def _chart(evaluation: Evaluation, metric: Metric) -> Chart:
    """A bar for each model, with a line over the interval of its figure."""
    figures = {i: model.figures[metric.key] for i, model in enumerate(evaluation.models) if metric.key in model.figures}
    names = {i: evaluation.models[i].model for i in figures}
    largest = max(max(figure.value, figure.high or 0) for figure in figures.values())
    scale = (CHART_WIDTH - 1) / largest if 0 < largest < math.inf else 0.0
    bars = [_bar(i, names[i], metric.shown(figure.value), figure, scale) for i, figure in figures.items()]
    return Chart(metric, bars, ", ".join(f"{names[bar.color]} {bar.value}" for bar in bars))


def _bar(color: int, name: str, value: str, figure: Estimate, scale: float) -> Bar:
    low = high = None
    if figure.low is not None and figure.high is not None and figure.high > figure.low and scale:
        low, high = f"{figure.low * scale:.1f}", f"{figure.high * scale:.1f}"
    return Bar(
        color=color,
        name=name if len(name) <= LONGEST_NAME else "..." + name[3 - LONGEST_NAME :],
        value=value,
        length=f"{max(2.0, figure.value * scale):.1f}",  # a bar of 0 can be seen, too
        low=low,
        high=high,
    )
