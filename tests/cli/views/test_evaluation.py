"""What the results of an evaluation look like on terminals of several widths, and in a pipe."""

import os
from dataclasses import replace

import pytest

from gpt2cli.cli.environment import Environment, use
from gpt2cli.cli.terminal import Console
from gpt2cli.cli.views.evaluation import QUESTIONS, show_evaluation
from gpt2cli.evaluation.answers import Answer
from gpt2cli.evaluation.bootstrap import Estimate
from gpt2cli.evaluation.results import METRICS, Evaluation, ModelResult, RecordResult
from gpt2cli.exchanges import Exchange
from tests.runner import Pipe

NAMES = ("tiny", "robin.pt", "wren.pt")


def evaluation(models: int, answered: int = 6) -> Evaluation:
    """Figures that fill a table: differences of 10 percent points, for the better or the worse."""
    figures = {metric.key: Estimate(0.5, 0.25, 0.75) for metric in METRICS}
    changes = {metric.key: Estimate(-0.1, -0.2, -0.05) for metric in METRICS}
    results = [ModelResult(name, 70, figures, changes if i else {}) for i, name in enumerate(NAMES[:models])]
    record = RecordResult("Who?", "", "Me.", [Answer("I am.", 3, "eos")] * models, [0.5] * models)
    return Evaluation("mine", "alpaca", "val", answered, 0, 3.0, {}, results, [record] * answered)


def questions(answered: int) -> Evaluation:
    records = [RecordResult(f"Who {i}?", "", None, [Answer("Me.", 3, "eos")], []) for i in range(answered)]
    model = ModelResult("tiny", None, {"ended": Estimate(1.0)}, {})
    return Evaluation("q.txt", "questions", "all", answered, 0, None, {}, [model], records)


def shown(monkeypatch: pytest.MonkeyPatch, results: Evaluation, width: int, encoding: str = "utf-8") -> str:
    for name, value in (("COLUMNS", str(width)), ("TERM", "xterm"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    screen, notes = (Pipe(encoding=encoding, terminal=True) for _ in range(2))
    with use(Environment(screen, screen, notes, os.environ)):
        show_evaluation(Console(), results, None)
    assert max(map(len, screen.written().splitlines())) <= width
    return screen.written() + notes.written()


def test_a_wide_terminal_has_one_table_for_all_models(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, evaluation(3), 160)
    assert "robin.pt and wren.pt compared with tiny" in text and text.count("95 % interval  ") == 2


def test_80_columns_have_a_table_for_each_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, evaluation(3), 80)
    for name in NAMES[1:]:
        assert f"\n{name} compared with tiny\n" in text
    rows = [line.split("  ") for line in text.splitlines() if line.startswith("loss ↓ ")]
    assert len(rows) == 2 and all(row[-1].strip() == "better" for row in rows)
    [row, _] = (line for line in text.splitlines() if line.startswith("next-token accuracy ↑"))
    assert "50.0 %" in row and "−10.0 points" in row and "−20.0 to −5.0" in row and row.rstrip().endswith("worse")
    assert "↑ higher is better, ↓ lower is better." in text and "does not contain 0" in text
    assert "Only 6 records: the figures are rough, and differences may be chance." in text


@pytest.mark.parametrize("width", [60, 41])
def test_a_narrow_terminal_has_a_block_for_each_model(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    text = shown(monkeypatch, evaluation(2), width)
    assert "\ntiny\nloss ↓" in text and "\nrobin.pt compared with tiny\nloss ↓" in text
    assert "\n  better: −0.100 [−0.200 to −0.050]\n" in text
    assert "\n  worse: −10.0 points [−20.0 to −5.0]\n" in text


def test_one_model_is_compared_with_none(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, evaluation(1), 40)
    assert "loss ↓" in text and not any(word in text for word in ("compared", "interval", "chance"))


def test_another_encoding_has_other_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, evaluation(2), 80, "ascii")
    assert "\\u" not in text and "-0.200 to -0.050" in text and "v lower is better" in text


@pytest.mark.parametrize("answered", [2, QUESTIONS + 1])
def test_questions_are_shown_with_their_answers_and_without_figures(
    monkeypatch: pytest.MonkeyPatch, answered: int
) -> None:
    text = shown(monkeypatch, questions(answered), 60)
    assert text.startswith(f"q.txt: {answered} questions, all answered\n")
    assert text.count("\n  tiny: Me.") == min(answered, QUESTIONS)
    assert not any(word in text for word in ("reference", "better", "%"))
    assert ("these are 5 of 6 questions: --out report.html writes all" in text) == (answered > QUESTIONS)


def test_what_stands_before_a_question_is_shown_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = tuple(Exchange(f"Question {i}?", "", f"Reply {i}.\n" + "word " * 100) for i in range(4))
    results = evaluation(1)
    talk = [replace(record, earlier=earlier, system="Be short.") for record in results.answered]
    text = shown(monkeypatch, replace(results, answered=talk, turns=30), 60)
    found = " ".join(text.split())
    assert "mine (val split): 6 conversations of 30 turns" in found
    assert "system: Be short. (2 earlier turns) Question 2? answer: Reply 2. word" in found
    assert "Who? reference: Me. tiny: I am." in found[found.index("Question 3? answer: Reply 3.") :]
    assert "Question 1?" not in found and "these are 3 of 6 conversations" in found
