"""The report: one page with everything in it, that no browser asks another place for.

Everything that came from data or models is escaped, and the page's policy lets no script run but its own.
"""

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from string import Template

from gpt2cli import __version__, paths
from gpt2cli.evaluation.answers import Answer
from gpt2cli.evaluation.bootstrap import Estimate
from gpt2cli.evaluation.results import Evaluation, Metric, RecordResult

_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
"""Control characters, of which HTML allows none, become the small pictures that Unicode has for them."""
WIDTH, BAR, STEP = 320, 14, 40
"""Of a chart, in its own units: its width, a bar's height, and from one bar to the next."""
CHARTED = ("perplexity", "bits_per_byte", "accuracy", "bleu", "chrf", "rouge_l", "bertscore", "ended")
COLORS = 6
"""Of models, in the style sheet."""
VERDICTS = {1: "better", 0: "even", -1: "worse"}


def page(evaluation: Evaluation) -> str:
    """The whole page, HTML."""
    template = Template(paths.asset("report.html").read_text(encoding="utf-8"))
    script, style = (paths.asset(f"report.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    style += _further_colors(len(evaluation.models))
    return template.substitute(
        script=script,
        style=style,
        script_hash=_policy_hash(script),
        style_hash=_policy_hash(style),
        title=text(f"{' and '.join(_names(evaluation))} on {evaluation.data}"),
        heading=" <span>against</span> ".join(
            f'<b class="m{i}">{text(name)}</b>' for i, name in enumerate(_names(evaluation))
        ),
        summary=text(_summary(evaluation)),
        figures=_figures(evaluation),
        charts="".join(_chart(evaluation, metric) for metric in evaluation.metrics if metric.key in CHARTED),
        answers=_answers(evaluation),
        version=text(__version__),
        settings=text(", ".join(f"{name} {value}" for name, value in evaluation.settings.items())),
    )


def text(value: str) -> str:
    """Anything as text of the page, also within quotes."""
    return escape(value.translate(_PICTURES), quote=True)


def _policy_hash(content: str) -> str:
    """How a Content-Security-Policy names what it allows: https://www.w3.org/TR/CSP3/#grammardef-hash-source."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _further_colors(models: int) -> str:
    """Colors for the models beyond those that the style sheet has some for, as different as their number allows."""
    hues = {i: round(i * 137.508) % 360 for i in range(COLORS, models)}  # the golden angle
    return "".join(f".m{i} {{ color: hsl({hue} 55% 50%); fill: hsl({hue} 55% 50%); }}\n" for i, hue in hues.items())


def _names(evaluation: Evaluation) -> list[str]:
    return [model.model for model in evaluation.models]


def _summary(evaluation: Evaluation) -> str:
    tokens = evaluation.models[0].tokens
    caution = f" {evaluation.caution.capitalize()}." if evaluation.caution else ""
    if evaluation.kind == "text":
        of = f"{tokens:,} tokens of {evaluation.records:,} plain texts, each predicted once.{caution}"
        return f"{evaluation.data}: {of}"
    split = "" if evaluation.split == "all" else f", {evaluation.split} split"
    answered = f"; {len(evaluation.answered):,} of them answered" if evaluation.answered else ""
    of = f"{evaluation.records:,} records{answered}.{caution}"
    predicted = "" if tokens is None else f"{tokens:,} tokens in the responses of "
    return f"{evaluation.data}{split}: {predicted}{of}"


def _figures(evaluation: Evaluation) -> str:
    """The table: a line a figure, a column a model, with the difference to the first below each other's."""
    head = "".join(f'<th scope="col" class="m{i}">{text(name)}</th>' for i, name in enumerate(_names(evaluation)))
    rows = []
    for metric in evaluation.metrics:
        cells = []
        for model in evaluation.models:
            figure, change = model.figures.get(metric.key), model.differences.get(metric.key)
            below = _change(metric, change) if change else ""
            cells.append(f"<td>{text(metric.shown(figure.value)) if figure else ''}{below}</td>")
        arrow = {1: "↑", -1: "↓", 0: ""}[metric.better]
        hint = {1: "more is better", -1: "less is better", 0: ""}[metric.better]
        label = f'{text(metric.label)}&nbsp;<i title="{hint}">{arrow}</i>'
        rows.append(f'<tr><th scope="row">{label}</th>{"".join(cells)}</tr>')
    return f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _change(metric: Metric, change: Estimate) -> str:
    shown = text(metric.shown_change(change.value))
    if change.low is None or change.high is None:
        return f"<small>{shown}</small>"
    low, high = (f"<u>{text(metric.shown_change(end, with_unit=False))}</u>" for end in (change.low, change.high))
    verdict = VERDICTS[metric.verdict(change)]
    return f'<small><b class="{verdict}">{shown}</b> <span>{low} to {high}</span></small>'


def _chart(evaluation: Evaluation, metric: Metric) -> str:
    """A bar a model, with a whisker over the interval that its figure lies in."""
    of_models = [(i, model.model, model.figures.get(metric.key)) for i, model in enumerate(evaluation.models)]
    figures = [(i, name, figure) for i, name, figure in of_models if figure]
    most = max(max(figure.value, figure.high or 0) for _, _, figure in figures)
    scale = (WIDTH - 1) / most if 0 < most < float("inf") else 0.0
    bars = "".join(
        _bar(metric, figure, name, color, STEP * place, scale) for place, (color, name, figure) in enumerate(figures)
    )
    said = ", ".join(f"{name} {metric.shown(figure.value)}" for _, name, figure in figures)
    direction = {1: "more is better", -1: "less is better", 0: ""}[metric.better]
    return (
        f"<figure><figcaption><b>{text(metric.label)}</b> {direction}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {STEP * len(figures)}" role="img" aria-label="{text(metric.label)}: {text(said)}">'
        f"{bars}</svg></figure>"
    )


def _bar(metric: Metric, figure: Estimate, name: str, color: int, top: int, scale: float) -> str:
    bar_top, middle = top + 19, top + 19 + BAR / 2
    width = max(2.0, figure.value * scale)
    short = name if len(name) <= 30 else "..." + name[-27:]
    parts = [
        f'<text x="0" y="{top + 13}">{text(short)}</text>',
        f'<text x="{WIDTH}" y="{top + 13}" text-anchor="end" class="value">{text(metric.shown(figure.value))}</text>',
        f'<rect x="0" y="{bar_top}" width="{WIDTH}" height="{BAR}" rx="3" class="track"/>',
        f'<rect x="0" y="{bar_top}" width="{width:.1f}" height="{BAR}" rx="3" class="m{color}"/>',
    ]
    if figure.low is not None and figure.high is not None and figure.high > figure.low and scale:
        low, high = figure.low * scale, figure.high * scale
        path = f"M{low:.1f} {middle - 4}v8M{low:.1f} {middle}H{high:.1f}M{high:.1f} {middle - 4}v8"
        parts.append(f'<path d="{path}" class="whisker"/>')
    return "".join(parts)


def _answers(evaluation: Evaluation) -> str:
    """The records with their answers, or nothing."""
    if not evaluation.answered:
        return ""
    cards = "".join(_card(evaluation, i, record) for i, record in enumerate(evaluation.answered, start=1))
    n = len(evaluation.answered)
    return (
        '<section><div class="bar"><h2>Answers</h2>'
        '<input type="search" id="search" placeholder="Search instructions and answers" '
        'aria-label="Search instructions and answers" autocomplete="off">'
        f'<output id="count" for="search">{n:,} of {n:,}</output></div>{cards}</section>'
    )


def _card(evaluation: Evaluation, number: int, record: RecordResult) -> str:
    about = f"<pre>{text(record.input)}</pre>" if record.input.strip() else ""
    return (
        f'<article><header><span>{number}</span><p dir="auto">{text(record.instruction)}</p></header>{about}'
        f'<div class="sides">{"".join(_sides(evaluation, record))}</div></article>'
    )


def _sides(evaluation: Evaluation, record: RecordResult) -> Iterator[str]:
    yield f'<div class="side"><h3>Reference</h3><pre dir="auto">{text(record.reference)}</pre></div>'
    for i, (name, answer, score) in enumerate(zip(_names(evaluation), record.answers, record.rouge_l, strict=True)):
        said = f'<pre dir="auto">{text(answer.text)}</pre>' if answer.text else '<p class="none">(nothing)</p>'
        yield (
            f'<div class="side"><h3 class="m{i}">{text(name)}</h3>{said}'
            f"<footer>{text(_about(answer, score))}</footer></div>"
        )


def _about(answer: Answer, score: float) -> str:
    ended = " · cut at the limit" if answer.finish_reason == "length" else ""
    return f"ROUGE-L {100 * score:.0f} · {answer.tokens:,} tokens{ended}"
