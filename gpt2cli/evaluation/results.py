"""The results of an evaluation, how a figure is written, and the results as JSON."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from gpt2cli.evaluation.answers import Answer
from gpt2cli.evaluation.bootstrap import Estimate

PERCENT = " %"
HIGHER, LOWER, NEITHER = 1, -1, 0
"""The direction that is better."""


@dataclass(frozen=True)
class Metric:
    """One kind of figure.

    key     its name in JSON
    label   its name on the screen
    better  HIGHER, LOWER or NEITHER
    digits  digits after the decimal point
    scale   the factor between the value in JSON and the one on the screen
    """

    key: str
    label: str
    better: int
    digits: int
    scale: float = 1.0
    unit: str = ""

    def shown(self, value: float) -> str:
        """The value as text, without an exponent whatever its size."""
        if not math.isfinite(value):
            return "too large"
        scaled = value * self.scale
        return f"{scaled:,.0f}{self.unit}" if abs(scaled) >= 1e4 else f"{scaled:,.{self.digits}f}{self.unit}"

    def shown_change(self, value: float, with_unit: bool = True) -> str:
        """A difference with its sign. The difference of two percentages is in points."""
        text = self.shown(abs(value)).removesuffix(self.unit)
        if with_unit and math.isfinite(value):
            text += self.unit.replace(PERCENT, " points")
        is_zero = not any(digit in text for digit in "123456789") and math.isfinite(value)
        return text if is_zero else ("+" if value > 0 else "\N{MINUS SIGN}") + text

    def verdict(self, change: Estimate) -> int:
        """1 for a significant improvement, -1 for a significant deterioration, 0 if the interval contains 0."""
        if change.low is None or change.high is None or not change.low * change.high > 0:
            return 0
        return self.better if change.low > 0 else -self.better


METRICS = (
    Metric("loss", "loss", LOWER, digits=3),
    Metric("perplexity", "perplexity", LOWER, digits=2),
    Metric("bits_per_byte", "bits per byte", LOWER, digits=3),
    Metric("word_perplexity", "word perplexity", LOWER, digits=2),
    Metric("accuracy", "next-token accuracy", HIGHER, digits=1, scale=100, unit=PERCENT),
    Metric("bleu", "BLEU", HIGHER, digits=1),
    Metric("chrf", "chrF", HIGHER, digits=1),
    Metric("rouge_l", "ROUGE-L", HIGHER, digits=1, scale=100),
    Metric("bertscore", "BERTScore", HIGHER, digits=1, scale=100),
    Metric("bertscore_precision", "BERTScore precision", HIGHER, digits=1, scale=100),
    Metric("bertscore_recall", "BERTScore recall", HIGHER, digits=1, scale=100),
    Metric("exact_match", "exact match", HIGHER, digits=1, scale=100, unit=PERCENT),
    Metric("answer_tokens", "tokens per answer", NEITHER, digits=1),
    Metric("ended", "finished answers", HIGHER, digits=1, scale=100, unit=PERCENT),
)
ENOUGH, ENOUGH_TOKENS = 30, 10_000
"""Fewer records or answers, or fewer tokens of a text, come with a warning."""


@dataclass(frozen=True)
class ModelResult:
    """One model's figures by `Metric.key`, and their differences from the first model that has the figure.

    tokens  the number of predicted tokens; None for answers that were made elsewhere
    """

    model: str
    tokens: int | None
    figures: dict[str, Estimate]
    differences: dict[str, Estimate]


@dataclass(frozen=True)
class RecordResult:
    """An instruction with each model's answer and the answer's ROUGE-L (0 to 1)."""

    instruction: str
    input: str
    reference: str
    answers: list[Answer]
    rouge_l: list[float]


@dataclass(frozen=True)
class Evaluation:
    """All results.

    kind              alpaca or text
    split             test, val, train or all
    records           the number of scored records, or of texts
    skipped           the number of records whose prompt alone fills the window
    reference_tokens  the mean length of the reference answers
    answered          the records that were answered
    """

    data: str
    kind: str
    split: str
    records: int
    skipped: int
    reference_tokens: float | None
    settings: dict[str, Any]
    models: list[ModelResult]
    answered: list[RecordResult] = field(default_factory=list)

    @property
    def metrics(self) -> list[Metric]:
        """The metrics with at least one figure. Exact match is left out if no answer matches."""
        found = [metric for metric in METRICS if any(metric.key in model.figures for model in self.models)]
        exact = [model.figures["exact_match"].value for model in self.models if "exact_match" in model.figures]
        return found if any(exact) else [metric for metric in found if metric.key != "exact_match"]

    @property
    def caution(self) -> str:
        """A warning if the figures come from few records, answers or tokens; otherwise ""."""
        tokens, answers = self.models[0].tokens, len(self.answered)
        if self.kind == "text":
            number, noun, enough = tokens or 0, "token", ENOUGH_TOKENS
        elif tokens is not None and self.records < ENOUGH:
            number, noun, enough = self.records, "record", ENOUGH
        else:
            number, noun, enough = answers, "answer", ENOUGH
        few = 0 < number < enough
        return f"only {number:,} {noun}{'s' * (number != 1)}: figures and intervals are rough" if few else ""

    def as_dict(self, with_records: bool = False) -> dict[str, Any]:
        """The object for JSON: fractions from 0 to 1, BLEU and chrF from 0 to 100, null for an infinite figure."""
        fields = {
            "data": self.data,
            "kind": self.kind,
            "split": self.split,
            "records": self.records,
            "skipped": self.skipped,
            "answers": len(self.answered),
            "reference_tokens": self.reference_tokens,
            "settings": self.settings,
            "models": [_model_as_dict(model) for model in self.models],
        }
        return fields | ({"answered": [_record_as_dict(record) for record in self.answered]} if with_records else {})


def _model_as_dict(result: ModelResult) -> dict[str, Any]:
    differences = {
        key: {name: _number(end) for name, end in asdict(it).items()} for key, it in result.differences.items()
    }
    return {
        "model": result.model,
        **{key: _number(figure.value) for key, figure in result.figures.items()},
        "tokens": result.tokens,
        "intervals": {key: [_number(figure.low), _number(figure.high)] for key, figure in result.figures.items()},
        "difference": differences or None,
    }


def _record_as_dict(record: RecordResult) -> dict[str, Any]:
    answers = [
        answer._asdict() | {"finish_reason": answer.finish_reason or None, "rouge_l": score}
        for answer, score in zip(record.answers, record.rouge_l, strict=True)
    ]
    texts = {"instruction": record.instruction, "input": record.input, "reference": record.reference}
    return texts | {"answers": answers}


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
