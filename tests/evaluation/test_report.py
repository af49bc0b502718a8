"""The page: nothing in it does anything but its own script, and nothing is fetched."""

import re
from dataclasses import replace

import pytest

from gpt2cli.evaluation.answers import Answer
from gpt2cli.evaluation.bootstrap import Estimate
from gpt2cli.evaluation.report import page
from gpt2cli.evaluation.results import METRICS, Evaluation, ModelResult, RecordResult
from gpt2cli.exchanges import Exchange
from tests.pages import Tags, assert_loads_nothing

HOSTILE = "</pre></title></script><script>alert(1)</script><img src=x onerror='alert(2)'>"
HOSTILE += '" onload="alert(3) $title &amp; {{ 1 }} \x1b[2J\x00'


def evaluation(word: str = "word", answered: int = 2, **hostile: str) -> Evaluation:
    """An evaluation in which every text is `word`, or what `hostile` gives for it."""

    def text(place: str) -> str:
        return hostile.get(place, word)

    figures = {metric.key: Estimate(0.5, 0.25, 0.75) for metric in METRICS}
    results = [ModelResult(f"{text('name')}{i}", 7, figures, figures if i else {}) for i in range(2)]
    answers = [Answer(text("answer"), 3, "length"), Answer("", 0, text("finish_reason"))]
    earlier = (Exchange(text("asked before"), text("input before"), text("said before")),)
    record = RecordResult(
        *(text("instruction"), text("input"), text("reference"), answers, [0.5, 0.0]), earlier, text("system")
    )
    settings = {text("setting"): text("value")}
    return Evaluation(
        data=text("data"),
        kind="alpaca",
        split=text("split"),
        records=9,
        skipped=0,
        reference_tokens=3.0,
        settings=settings,
        models=results,
        answered=[record] * answered,
    )


def assert_harmless(html: str) -> None:
    """The page has the tags and the attributes of a page without hostile texts, and no control characters."""
    harmless, found = Tags(page(evaluation())), Tags(html)
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in harmless.tags]
    assert [sorted(attributes) for _, attributes in found.tags] == [sorted(of) for _, of in harmless.tags]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", html)


PLACES = ["name", "data", "split", "setting", "value", "instruction", "input", "reference", "answer"]
PLACES += ["asked before", "input before", "said before", "system"]


@pytest.mark.parametrize("place", PLACES)
def test_hostile_texts_are_text_and_nothing_else_wherever_they_appear(place):
    html = page(evaluation(**{place: HOSTILE}))
    assert_harmless(html)
    shown = Tags(html).text
    assert "<script>alert(1)</script>" in shown and "$title &amp; {{ 1 }} ␛[2J␀" in shown


def test_what_comes_from_data_and_models_is_text_and_nothing_else():
    html = page(evaluation(HOSTILE))
    assert_harmless(html)
    assert Tags(html).text.count("<script>alert(1)</script>") >= len(PLACES)


def test_a_long_name_is_shortened_in_the_charts_and_harmless():
    html = page(evaluation(name="<b>" * 20))
    assert_harmless(html)
    assert "..." + ("<b>" * 20 + "0")[-27:] + "0.50" in re.sub(r"\s", "", Tags(html).text)


def test_questions_have_answers_side_by_side_and_no_scores():
    asked = evaluation("word", instruction=HOSTILE, answer=HOSTILE)
    records = [replace(record, reference=None, rouge_l=[]) for record in asked.answered]
    html = page(replace(asked, kind="questions", answered=records))
    [body] = re.findall("<body>(.*)<script>", html, re.DOTALL)
    shown = " ".join(Tags(body).text.split())
    assert "Answers of word0 and word1" in shown and html.count('class="side"') == 2 * len(records)
    assert "<table" not in html and "<svg" not in html
    assert not any(word in shown for word in ("Reference", "ROUGE", "perplexity", "compared", "better", "only"))
    assert shown.count("<script>alert(1)</script>") == 2 * len(records) and "<script>alert(1)" not in html


def test_what_stands_before_a_question_is_above_it_and_folded_if_it_is_long():
    [record] = evaluation(
        answered=1, **{"asked before": "Whence?", "said before": "From Rome.", "system": "Be short."}
    ).answered
    record = replace(record, instruction="Whither?")

    def shown(record: RecordResult) -> tuple[str, list[dict[str, str | None]]]:
        found = Tags(page(replace(evaluation(), answered=[record])))
        return " ".join(found.text.split()), [attributes for tag, attributes in found.tags if tag == "details"]

    text, [fold] = shown(record)
    assert "1 earlier turn Be short. Whence? word From Rome. Whither?" in text and "open" in fold
    long = replace(record, earlier=(Exchange("Tell.", "", "word " * 1000), Exchange("Thanks.", "", "Well.")))
    text, [fold] = shown(long)
    assert "2 earlier turns Be short. Tell. word" in text and "Thanks. Well. Whither?" in text and "open" not in fold
    text, [fold] = shown(replace(record, earlier=()))
    assert "System text Be short. Whither?" in text
    assert shown(replace(record, earlier=(), system=""))[1] == []


def test_the_heading_says_which_model_is_compared_with_which():
    three = [ModelResult(name, 7, {"loss": Estimate(0.5)}, {}) for name in ("base", "a.pt", "b.pt")]
    for models, heading in ((three, "a.pt and b.pt compared with base"), (three[:1], "base")):
        html = page(Evaluation("d", "text", "all", 9, 0, None, {}, models))
        assert f"<title>{heading} on d</title>" in html
        [shown] = re.findall("<h1>.*?</h1>", html, re.DOTALL)
        assert " ".join(Tags(shown).text.split()) == heading


def test_bars_that_are_all_alike_are_not_drawn():
    def charts(values: list[Estimate]) -> int:
        models = [ModelResult(f"m{i}", 7, {"ended": value}, {}) for i, value in enumerate(values)]
        return page(Evaluation("d", "alpaca", "all", 40, 0, None, {"stride": None}, models)).count("<svg")

    assert charts([Estimate(1.0, 1.0, 1.0)] * 2) == charts([Estimate(0.0)]) == 0
    assert charts([Estimate(1.0), Estimate(0.5)]) == charts([Estimate(0.5, 0.25, 0.75)]) == 1


def test_figures_stay_with_their_signs_and_units():
    html = page(evaluation())
    assert "50.0\xa0%" in html and "+50.0\xa0points" in html and "+25.0\xa0to\xa0+75.0" in html
    assert "50.0 %" not in Tags(html).text and "25.0 to" not in html


def test_a_reason_to_end_is_not_shown():
    assert page(evaluation(finish_reason=HOSTILE)) == page(evaluation())


def test_it_asks_for_nothing_and_allows_its_own_script_only():
    html = page(evaluation("word"))
    assert_loads_nothing(html)
    assert "http" not in re.sub(r"http-equiv", "", html) and "href" not in html


def test_every_model_has_a_colour_of_its_own():
    figures = {metric.key: Estimate(0.5, 0.25, 0.75) for metric in METRICS}
    many = [ModelResult(f"m{i}", 7, figures, figures if i else {}) for i in range(12)]
    html = page(Evaluation("a", "alpaca", "test", 9, 0, 3.0, {}, many))
    colors = [re.findall(rf"\.m{i} {{ color: ([^;]+);", html) for i in range(12)]
    assert all(len(color) == 1 for color in colors) and len({color[0] for color in colors}) == 12


def test_answers_made_elsewhere_have_fewer_figures():
    figures = {metric.key: Estimate(0.5, 0.25, 0.75) for metric in METRICS}
    some = {key: figures[key] for key in ("bleu", "rouge_l")}
    results = [ModelResult("model", 7, figures, {}), ModelResult("given", None, some, some)]
    record = RecordResult("a", "", "b", [Answer("c", 1, "eos"), Answer("d", 1, "")], [0.5, 0.5])
    html = page(Evaluation("a", "alpaca", "test", 9, 0, 3.0, {}, results, [record]))
    [row] = re.findall(r"next-token accuracy.*?</tr>", html, re.DOTALL)
    row = re.sub(r">\s+<", "><", row)
    assert row.endswith("<td></td></tr>") and row.count("<td>") == 2
    alone = Evaluation(
        "a",
        "alpaca",
        "test",
        9,
        0,
        3.0,
        {},
        results[1:],
        [replace(record, answers=record.answers[1:], rouge_l=[0.5])] * 2,
    )
    html = page(alone).replace("&nbsp;", " ")
    assert "perplexity" not in html and "Only 2 answers: the figures are rough." in html


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan"), 1e300, -1.0])
def test_odd_figures_make_a_page_too(value):
    figures = {metric.key: Estimate(value) for metric in METRICS}
    odd = Evaluation("a", "text", "all", 1, 0, None, {}, [ModelResult("m", 1, figures, {})])
    html = page(odd)
    assert "nan" not in html.replace("nance", "") and "<article>" not in html and 'width="-' not in html
