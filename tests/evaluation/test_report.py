"""The page: nothing in it does anything but its own script, and nothing is fetched."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from gpt2cli.evaluation.answers import Answer
from gpt2cli.evaluation.bootstrap import Estimate
from gpt2cli.evaluation.report import page
from gpt2cli.evaluation.results import METRICS, Evaluation, ModelResult, RecordResult

HOSTILE = "</pre></title></script><script>alert(1)</script><img src=x onerror='alert(2)'>"
HOSTILE += '" onload="alert(3) $title &amp; \x1b[2J\x00'


class Tags(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def evaluation(word: str, answered: int = 2) -> Evaluation:
    figures = {metric.key: Estimate(0.5, 0.25, 0.75) for metric in METRICS}
    results = [ModelResult(f"{word}{i}", 7, figures, figures if i else {}) for i in range(2)]
    answers = [Answer(word, 3, "length"), Answer("", 0, "eos")]
    record = RecordResult(word, word, word, answers, [0.5, 0.0])
    return Evaluation(word, "alpaca", "test", 9, 0, 3.0, {"note": word}, results, [record] * answered)


def test_what_comes_from_data_and_models_is_text_and_nothing_else():
    harmless, hostile = Tags(page(evaluation("word"))), Tags(page(evaluation(HOSTILE)))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in harmless.tags]
    assert [sorted(attributes) for _, attributes in hostile.tags] == [sorted(of) for _, of in harmless.tags]
    assert "<script>alert(1)</script>" in hostile.text and "$title &amp; ␛[2J␀" in hostile.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", page(evaluation(HOSTILE)))


def test_it_asks_for_nothing_and_allows_its_own_script_only():
    html = page(evaluation("word"))
    found = Tags(html).tags
    names = {"src", "href", "srcset", "data", "action"} | {"onclick", "onload", "onerror"}
    assert not [attributes for _, attributes in found if names & set(attributes)]
    assert "http" not in re.sub(r"http-equiv", "", html) and "url(" not in html and "@import" not in html
    [policy] = [attributes["content"] for tag, attributes in found if attributes.get("http-equiv")]
    for kind in ("script", "style"):
        [content] = re.findall(rf"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")


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
    [row] = re.findall(r">next token right.*?</tr>", html)
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
    assert "perplexity" not in html and "Only 2 answers: figures and intervals are rough." in html


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan"), 1e300, -1.0])
def test_odd_figures_make_a_page_too(value):
    figures = {metric.key: Estimate(value) for metric in METRICS}
    odd = Evaluation("a", "text", "all", 1, 0, None, {}, [ModelResult("m", 1, figures, {})])
    html = page(odd)
    assert "nan" not in html.replace("nance", "") and "<article>" not in html and 'width="-' not in html
