"""How figures are written for a reader."""

import json
import math
from dataclasses import replace

import pytest

from gpt2cli.evaluation.answers import Answer
from gpt2cli.evaluation.bootstrap import Estimate
from gpt2cli.evaluation.results import METRICS, Evaluation, ModelResult, RecordResult
from gpt2cli.exchanges import Exchange

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


@pytest.mark.parametrize(
    ("key", "value", "low", "high", "interval", "verdict"),
    [
        ("loss", -0.5, -0.75, -0.25, "−0.750 to −0.250", "better"),
        ("loss", 0.5, 0.25, 0.75, "+0.250 to +0.750", "worse"),
        ("accuracy", 0.05, -0.01, 0.11, "−1.0 to +11.0", "unclear"),
        ("exact_match", 1.0, 1.0, 1.0, "", "better"),
        ("exact_match", 0.0, 0.0, 0.0, "", "same"),
        ("exact_match", 0.0, -0.1, 0.1, "−10.0 to +10.0", "unclear"),
        ("answer_tokens", 5.0, 4.0, 6.0, "+4.0 to +6.0", ""),
        ("loss", 0.5, None, None, "", ""),
    ],
)
def test_a_difference_is_judged_by_its_interval(
    key: str, value: float, low: float | None, high: float | None, interval: str, verdict: str
) -> None:
    change = Estimate(value, low, high)
    assert (BY_KEY[key].shown_interval(change), BY_KEY[key].judged(change)) == (interval, verdict)


def test_the_summary_tells_what_was_measured() -> None:
    assert evaluation({"loss": 1.0}, 40, 40).summary == "d: 40 records with 9 response tokens, all answered"
    assert evaluation({"loss": 1.0}, 40, 3).summary == "d: 40 records with 9 response tokens, 3 of them answered"
    assert evaluation({"loss": 1.0}, 1).summary == "d: 1 record with 9 response tokens"
    assert evaluation({"loss": 1.0}, 2, kind="text").summary == "d: 2 texts, 9 tokens"


def test_conversations_are_called_so_and_their_turns_are_counted() -> None:
    chats = replace(evaluation({"loss": 1.0}, 40, 40), turns=1234)
    assert chats.summary == "d: 40 conversations of 1,234 turns with 9 response tokens, all answered"
    assert replace(chats, records=3).caution == "only 3 conversations: the figures are rough"
    asked = replace(evaluation({}, 2, 1, "questions"), turns=5)
    assert replace(asked, models=[ModelResult("m", None, {}, {})]).summary == (
        "d: 2 conversations of 5 turns, 1 of them answered"
    )
    single = replace(chats, turns=40)
    assert single.noun == "record" and single.summary == evaluation({"loss": 1.0}, 40, 40).summary
    assert (chats.as_dict()["records"], chats.as_dict()["turns"]) == (40, 1234)


def test_json_has_what_stands_before_the_question_of_a_conversation_only() -> None:
    [record] = evaluation({"loss": 1.0}, 1, 1).answered
    talk = replace(record, earlier=(Exchange("Hello?", "", "Hi."),), system="Be kind.")
    told = [replace(evaluation({"loss": 1.0}), answered=[each]).as_dict(True)["answered"][0] for each in (record, talk)]
    assert told[1] == told[0] | {
        "system": "Be kind.",
        "earlier": [{"instruction": "Hello?", "input": "", "output": "Hi."}],
    }


def test_differences_of_few_records_may_be_chance() -> None:
    few = evaluation({"loss": 1.0}, records=3)
    two = replace(few, models=few.models * 2)
    assert two.caution == "only 3 records: the figures are rough, and differences may be chance"


def test_questions_have_answers_and_nothing_that_needs_a_reference() -> None:
    record = RecordResult("Who?", "", None, [Answer("I.", 2, "eos")], [])
    figures = {"answer_tokens": Estimate(2.0), "ended": Estimate(1.0)}
    models = [ModelResult("m", None, figures, {})]
    asked = Evaluation("q.txt", "questions", "all", 2, 0, None, {}, models, [record])
    assert (asked.metrics, asked.caution, asked.summary) == ([], "", "q.txt: 2 questions, 1 of them answered")
    told = asked.as_dict()
    assert told["answered"] == [
        {"instruction": "Who?", "input": "", "answers": [{"text": "I.", "tokens": 2, "finish_reason": "eos"}]}
    ]
    assert (told["answers"], told["reference_tokens"]) == (1, None)
    [model] = told["models"]
    assert not {"loss", "perplexity", "accuracy", "bleu", "rouge_l", "exact_match"} & model.keys()
    assert (model["answer_tokens"], model["ended"], model["tokens"]) == (2.0, 1.0, None)


def test_that_no_answer_matches_is_a_result_too() -> None:
    shown = evaluation({"bleu": 1.0, "exact_match": 0.0})
    assert [metric.key for metric in shown.metrics] == ["bleu", "exact_match"]
    assert shown.as_dict()["models"][0]["exact_match"] == 0


@pytest.mark.parametrize(
    ("records", "answers", "kind", "told"),
    [
        (6, 6, "alpaca", "only 6 records: the figures are rough"),
        (1, 0, "alpaca", "only 1 record: the figures are rough"),
        (400, 3, "alpaca", "only 3 answers: the figures are rough"),
        (400, 30, "alpaca", ""),
        (30, 0, "alpaca", ""),
        (1, 0, "text", "only 9 tokens: the figures are rough"),
    ],
)
def test_figures_of_few_records_come_with_a_warning(records: int, answers: int, kind: str, told: str) -> None:
    assert evaluation({"loss": 1.0}, records, answers, kind).caution == told


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_json_holds_no_number_that_is_none(value: float) -> None:
    figures = {key: Estimate(value, value, value) for key in BY_KEY}
    odd = Evaluation("d", "text", "all", 1, 0, None, {}, [ModelResult("m", 9, figures, figures)])
    assert json.loads(json.dumps(odd.as_dict(True), allow_nan=False))["models"][0]["loss"] is None
