"""What an evaluation gives, and how it is said in JSON."""

import math
from dataclasses import dataclass, field
from typing import Any

from gpt2cli.evaluation.answers import Answer
from gpt2cli.evaluation.bootstrap import Estimate


@dataclass(frozen=True)
class Metric:
    """One of the figures: its name in JSON, how people call it, which way is better, and how it is written."""

    key: str
    label: str
    better: int  # 1 for more, -1 for less, 0 for neither
    digits: int
    scale: float = 1.0
    unit: str = ""

    def shown(self, value: float) -> str:
        """The figure as it is read: never a stray power of ten, whatever its size."""
        if not math.isfinite(value):
            return "too large"
        scaled = value * self.scale
        return f"{scaled:,.0f}{self.unit}" if abs(scaled) >= 1e4 else f"{scaled:,.{self.digits}f}{self.unit}"

    def shown_change(self, value: float, with_unit: bool = True) -> str:
        """A difference, with its sign: that of two percentages is in points."""
        text = self.shown(abs(value)).removesuffix(self.unit)
        if with_unit and math.isfinite(value):
            text += self.unit.replace(PERCENT, " points")
        nothing = not any(digit in text for digit in "123456789") and math.isfinite(value)
        return text if nothing else ("+" if value > 0 else "\N{MINUS SIGN}") + text

    def verdict(self, change: Estimate) -> int:
        """1 for a change to the better that is no accident, -1 for one to the worse, 0 if there is no telling."""
        if change.low is None or change.high is None or not change.low * change.high > 0:
            return 0
        return self.better if change.low > 0 else -self.better


PERCENT = " %"
METRICS = (
    Metric("loss", "loss", -1, 3),
    Metric("perplexity", "perplexity", -1, 2),
    Metric("bits_per_byte", "bits per byte", -1, 3),
    Metric("word_perplexity", "word perplexity", -1, 2),
    Metric("accuracy", "next-token accuracy", 1, 1, 100, PERCENT),
    Metric("bleu", "BLEU", 1, 1),
    Metric("chrf", "chrF", 1, 1),
    Metric("rouge_l", "ROUGE-L", 1, 1, 100),
    Metric("bertscore", "BERTScore", 1, 1, 100),
    Metric("bertscore_precision", "BERTScore precision", 1, 1, 100),
    Metric("bertscore_recall", "BERTScore recall", 1, 1, 100),
    Metric("exact_match", "exact match", 1, 1, 100, PERCENT),
    Metric("answer_tokens", "tokens per answer", 0, 1),
    Metric("ended", "finished answers", 1, 1, 100, PERCENT),
)
FEW, FEW_TOKENS = 30, 10_000
"""Records or answers, or tokens of a text, below which a reader is warned of the figures."""


@dataclass(frozen=True)
class ModelResult:
    """One model's figures by `Metric.key`, and their differences to those of the first model that has them.

    tokens  how many were predicted; None for answers that were made elsewhere
    """

    model: str
    tokens: int | None
    figures: dict[str, Estimate]
    differences: dict[str, Estimate]


@dataclass(frozen=True)
class RecordResult:
    """An instruction that was answered, with each model's answer and how near that comes (ROUGE-L, 0 to 1)."""

    instruction: str
    input: str
    reference: str
    answers: list[Answer]
    rouge_l: list[float]


@dataclass(frozen=True)
class Evaluation:
    """Everything that was found out.

    kind     alpaca or text
    split    test, val, train or all
    records  of the data that were scored, or texts
    skipped  records whose prompt alone fills the window
    answered what was answered
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
        """Those that there are figures of, but for exact matches where there is not one."""
        found = [metric for metric in METRICS if any(metric.key in model.figures for model in self.models)]
        exact = [model.figures["exact_match"].value for model in self.models if "exact_match" in model.figures]
        return found if any(exact) else [metric for metric in found if metric.key != "exact_match"]

    @property
    def caution(self) -> str:
        """A warning if the figures are of few records or answers; empty otherwise."""
        tokens, answers = self.models[0].tokens, len(self.answered)
        if self.kind == "text":
            number, noun, enough = tokens or 0, "token", FEW_TOKENS
        elif tokens is not None and self.records < FEW:
            number, noun, enough = self.records, "record", FEW
        else:
            number, noun, enough = answers, "answer", FEW
        few = 0 < number < enough
        return f"only {number:,} {noun}{'s' * (number != 1)}: figures and intervals are rough" if few else ""

    def as_dict(self, with_records: bool = False) -> dict[str, Any]:
        """For JSON: shares from 0 to 1, BLEU and chrF from 0 to 100, null for a figure too large for a number."""
        told: dict[str, Any] = {"data": self.data, "kind": self.kind, "split": self.split, "records": self.records}
        told |= {"skipped": self.skipped, "answers": len(self.answered), "reference_tokens": self.reference_tokens}
        told |= {"settings": self.settings, "models": [_model_as_dict(model) for model in self.models]}
        if with_records:
            told["answered"] = [_record_as_dict(record) for record in self.answered]
        return told


def _model_as_dict(result: ModelResult) -> dict[str, Any]:
    told: dict[str, Any] = {"model": result.model}
    told |= {key: _number(figure.value) for key, figure in result.figures.items()}
    told["tokens"] = result.tokens
    told["intervals"] = {key: [_number(e.low), _number(e.high)] for key, e in result.figures.items()}
    told["difference"] = {
        key: {"value": _number(e.value), "low": _number(e.low), "high": _number(e.high)}
        for key, e in result.differences.items()
    } or None
    return told


def _record_as_dict(record: RecordResult) -> dict[str, Any]:
    answers = [
        {"text": answer.text, "tokens": answer.tokens, "finish_reason": answer.finish_reason or None, "rouge_l": score}
        for answer, score in zip(record.answers, record.rouge_l, strict=True)
    ]
    told = {"instruction": record.instruction, "input": record.input, "reference": record.reference}
    return told | {"answers": answers}


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
