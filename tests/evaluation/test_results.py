"""How figures are written for a reader."""

import json
import math

import pytest

from gpt2cli.evaluation.answers import Answer
from gpt2cli.evaluation.bootstrap import Estimate
from gpt2cli.evaluation.results import METRICS, Evaluation, ModelResult, RecordResult

BY_KEY = {metric.key: metric for metric in METRICS}


def evaluation(values: dict[str, float], records: int = 100, answers: int = 0, kind: str = "alpaca") -> Evaluation:
    figures = {key: Estimate(value) for key, value in values.items()}
    record = RecordResult("a", "", "b", [Answer("c", 1, "eos")], [0.0])
    return Evaluation("d", kind, "all", records, 0, None, {}, [ModelResult("m", 9, figures, {})], [record] * answers)


def test_differences_of_percentages_are_points() -> None:
    metric = BY_KEY["accuracy"]
    assert metric.shown(0.25) == "25.0 %"
    assert metric.shown_change(0.25) == "+25.0 points"
    assert metric.shown_change(-0.25, with_unit=False) == "\N{MINUS SIGN}25.0"
    assert metric.shown_change(0.0) == "0.0 points"
    assert BY_KEY["loss"].shown_change(0.5) == "+0.500"


def test_exact_matches_are_left_out_where_there_is_none() -> None:
    shown = [metric.key for metric in evaluation({"bleu": 1.0, "exact_match": 0.0}).metrics]
    assert shown == ["bleu"]
    assert [metric.key for metric in evaluation({"exact_match": 0.1}).metrics] == ["exact_match"]
    assert evaluation({"exact_match": 0.0}).as_dict()["models"][0]["exact_match"] == 0


@pytest.mark.parametrize(
    ("records", "answers", "kind", "told"),
    [
        (6, 6, "alpaca", "only 6 records: figures and intervals are rough"),
        (1, 0, "alpaca", "only 1 record: figures and intervals are rough"),
        (400, 3, "alpaca", "only 3 answers: figures and intervals are rough"),
        (400, 30, "alpaca", ""),
        (30, 0, "alpaca", ""),
        (1, 0, "text", "only 9 tokens: figures and intervals are rough"),
    ],
)
def test_figures_of_few_records_come_with_a_warning(records: int, answers: int, kind: str, told: str) -> None:
    assert evaluation({"loss": 1.0}, records, answers, kind).caution == told


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_json_holds_no_number_that_is_none(value: float) -> None:
    figures = {key: Estimate(value, value, value) for key in BY_KEY}
    odd = Evaluation("d", "text", "all", 1, 0, None, {}, [ModelResult("m", 9, figures, figures)])
    assert json.loads(json.dumps(odd.as_dict(True), allow_nan=False))["models"][0]["loss"] is None
