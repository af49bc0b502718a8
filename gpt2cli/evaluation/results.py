"""The results of an evaluation, how a figure is written, and the results as JSON."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from gpt2cli.counted import counted
from gpt2cli.evaluation.answers import Answer
from gpt2cli.evaluation.bootstrap import Estimate
from gpt2cli.exchanges import Exchange

PERCENT = " %"
HIGHER, LOWER, NEITHER = 1, -1, 0
"""The direction that is better."""
ARROWS = {HIGHER: "↑", LOWER: "↓", NEITHER: ""}


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

    def judged(self, change: Estimate) -> str:
        """The verdict in a word: better, worse, unclear or same; "" if the figure has no direction or no interval."""
        if change.low is None or change.high is None or self.better == NEITHER:
            return ""
        if change.value == change.low == change.high == 0:
            return "same"
        return {1: "better", 0: "unclear", -1: "worse"}[self.verdict(change)]

    def shown_interval(self, change: Estimate) -> str:
        """The interval of a difference; "" if there is none, or if all draws gave the same."""
        if change.low is None or change.high is None:
            return ""
        low, high = (self.shown_change(end, with_unit=False) for end in (change.low, change.high))
        return "" if low == high else f"{low} to {high}"


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
    """An instruction with each model's answer and the answer's ROUGE-L (0 to 1).

    Without a reference, `rouge_l` is empty. In a conversation the instruction is the last one: the `earlier` exchanges
    stand before it, and `system` is the conversation's system text.
    """

    instruction: str
    input: str
    reference: str | None
    answers: list[Answer]
    rouge_l: list[float]
    earlier: tuple[Exchange, ...] = ()
    system: str = ""


@dataclass(frozen=True)
class Evaluation:
    """All results.

    kind              alpaca, text, or questions: instructions without references, which are answered but not scored
    split             test, val, train or all
    records           the number of scored records or conversations, of texts, or of questions
    skipped           the number of records whose prompt alone fills the window
    reference_tokens  the mean length of the reference answers
    answered          the records that were answered
    turns             the number of exchanges in the records, which is larger for conversations; 0 for texts
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
    turns: int = 0

    @property
    def noun(self) -> str:
        """The word for one of the records."""
        if self.turns > self.records:
            return "conversation"
        return {"text": "text", "questions": "question"}.get(self.kind, "record")

    @property
    def metrics(self) -> list[Metric]:
        """The metrics that are shown: those with a figure.

        Questions have none: without references, nothing says which answer is better.
        """
        if self.kind == "questions":
            return []
        return [metric for metric in METRICS if any(metric.key in model.figures for model in self.models)]

    @property
    def caution(self) -> str:
        """A warning if the figures come from few records, answers or tokens; otherwise ""."""
        if not self.metrics:
            return ""
        tokens, answers = self.models[0].tokens, len(self.answered)
        if self.kind == "text":
            number, noun, enough = tokens or 0, "token", ENOUGH_TOKENS
        elif tokens is not None and self.records < ENOUGH:
            number, noun, enough = self.records, self.noun, ENOUGH
        else:
            number, noun, enough = answers, "answer", ENOUGH
        if not 0 < number < enough:
            return ""
        differences = ", and differences may be chance" if len(self.models) > 1 else ""
        return f"only {counted(number, noun)}: the figures are rough{differences}"

    @property
    def summary(self) -> str:
        """The data and its size in one line."""
        tokens, answers = self.models[0].tokens, len(self.answered)
        if self.kind == "text":
            return f"{self.data}: {counted(self.records, self.noun)}, {counted(tokens or 0, 'token')}"
        split = "" if self.split == "all" else f" ({self.split} split)"
        size = counted(self.records, self.noun) + f" of {self.turns:,} turns" * (self.turns > self.records)
        if tokens is not None:
            size += f" with {counted(tokens, 'response token')}"
        answered = "all answered" if answers == self.records else f"{answers:,} of them answered"
        return f"{self.data}{split}: {size}" + (f", {answered}" if answers else "")

    def as_dict(self, with_records: bool = False) -> dict[str, Any]:
        """The object for JSON: fractions from 0 to 1, BLEU and chrF from 0 to 100, null for an infinite figure.

        The answers are in it `with_records`, and if they are all that there is.
        """
        fields = {
            "data": self.data,
            "kind": self.kind,
            "split": self.split,
            "records": self.records,
            "turns": self.turns,
            "skipped": self.skipped,
            "answers": len(self.answered),
            "reference_tokens": self.reference_tokens,
            "settings": self.settings,
            "models": [_model_as_dict(model) for model in self.models],
        }
        if with_records or self.kind == "questions":
            fields["answered"] = [_record_as_dict(record) for record in self.answered]
        return fields


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
    texts: dict[str, Any] = {"instruction": record.instruction, "input": record.input}
    if record.system:
        texts["system"] = record.system
    if record.earlier:
        texts["earlier"] = [asdict(exchange) for exchange in record.earlier]
    answers = [answer._asdict() | {"finish_reason": answer.finish_reason or None} for answer in record.answers]
    if record.reference is not None:
        texts["reference"] = record.reference
        scored = zip(answers, record.rouge_l, strict=True)
        answers = [answer | {"rouge_l": score} for answer, score in scored]
    return texts | {"answers": answers}


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
