"""The report of an evaluation: one HTML page that loads nothing else.

The template escapes every value, and the page's Content-Security-Policy allows no script or style but its own.
"""

import base64
import hashlib
import math
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined

from gpt2cli import __version__, paths
from gpt2cli.evaluation.bootstrap import Estimate
from gpt2cli.evaluation.results import ARROWS, Evaluation, Metric, RecordResult

_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
"""HTML allows no control characters. Unicode has a visible picture for each of them."""
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
    script, style = (_asset(f"report.{kind}") for kind in ("js", "css"))
    style += _further_colors(len(evaluation.models))
    environment = Environment(
        autoescape=True, finalize=_visible, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    charts = [_chart(evaluation, metric) for metric in evaluation.metrics if metric.key in CHARTED]
    environment.filters |= {"unbroken": _unbroken, "fits_unfolded": _fits_unfolded}
    heading = _heading(evaluation)
    names = " ".join(filter(None, (word for i, before in heading for word in (before, evaluation.models[i].model))))
    return environment.from_string(_asset("report.html.jinja")).render(
        evaluation=evaluation,
        heading=heading,
        title=f"{names} on {evaluation.data}",
        arrows=ARROWS,
        charts=[chart for chart in charts if chart.tells_something],
        width=CHART_WIDTH,
        count=f"{len(evaluation.answered):,}",
        settings=", ".join(f"{name} {value}" for name, value in evaluation.settings.items() if value is not None),
        version=__version__,
        script=script,
        style=style,
        script_hash=_policy_hash(script),
        style_hash=_policy_hash(style),
    )


def _asset(name: str) -> str:
    return paths.asset(name).read_text(encoding="utf-8")


def _visible(value: object) -> object:
    """A value of the template, its control characters replaced by pictures. The template escapes the result."""
    return value.translate(_PICTURES) if isinstance(value, str) else value


def _policy_hash(content: str) -> str:
    """The name of an allowed script or style: https://www.w3.org/TR/CSP3/#grammardef-hash-source."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


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


def _unbroken(text: str) -> str:
    """The text with no-break spaces, so that a figure stays with its sign and its unit."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


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
