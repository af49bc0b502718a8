"""The page of an explanation has the numbers of its JSON, loads nothing, and shows every text as text."""

import base64
import json
import re
from typing import Any

import pytest

from gpt2cli.insight import page_figures as figures
from gpt2cli.insight.page import SCORES, page
from gpt2cli.tokenizer import encode
from tests.insight.explanations import explained, made_up
from tests.insight.subjects import FOIL, OTHER_TEXT, TARGET, TEXT, subject
from tests.pages import Tags, assert_loads_nothing

KEYS = {"tokens": "tokens", "next": "next", "lens": "lens", "attention": "heads", "compared": "compared"}
KEYS |= {part: part for part in ("attribution", "saliency", "ablation", "patching")}
"""For each part, its key in the JSON object, which is the name of its section too."""
SHARED = 1
"""The number of tokens with which both prompts begin."""
HOSTILE = "</script><img onerror='alert(2)'>\" {{ 1 }} \u202e\x1b\x00"


@pytest.fixture(scope="module", params=["random", "tiny"])
def found(request) -> dict[str, Any]:
    """Everything about a prompt, with a foil, a second prompt and, where that is possible, a second model."""
    about = subject(request.param, against=OTHER_TEXT, target=TARGET, foil=FOIL)
    return explained(about, TEXT, request.param, other=request.param == "random")


def data(html: str) -> dict[str, Any]:
    """The numbers that the page's script reads."""
    [text] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    return json.loads(text)


def sections(html: str) -> list[str]:
    return [str(attributes["id"]) for tag, attributes in Tags(html).tags if tag == "section"]


def test_the_embedded_numbers_equal_those_of_the_json(found):
    embedded = data(page(found))["found"]
    for shown, head in zip(embedded["heads"], found["heads"], strict=True):
        read = iter(base64.b64decode(shown.pop("pattern")))
        for row in head["pattern"]:
            assert [next(read) / 255 for _ in row] == pytest.approx(row, abs=0.5 / 255 + 1e-6)
        assert not [*read]
    expected = {**found, "heads": [{**head} for head in found["heads"]]}
    for head in expected["heads"]:
        del head["pattern"]
    assert embedded == json.loads(json.dumps(expected))


def test_tables_have_what_is_known_of_the_prompt_and_of_the_next_token(found):
    tables = Tags(page(found)).tables
    for i, (row, cells) in enumerate(zip(found["tokens"], tables["The tokens of the prompt"][1:], strict=True)):
        assert cells[:4] == [str(i + 1), figures.token_name(row["text"]), str(row["id"]), bytes(row["bytes"]).hex(" ")]
        bits, entropy = (None if row[key] is None else abs(row[key]) / 0.693147181 for key in ("logprob", "entropy"))
        assert cells[4:] == [figures.number(bits), figures.number(row["rank"], 0), figures.number(entropy)]
    [sampled] = [rows for caption, rows in tables.items() if caption.startswith("temperature 0.7")]
    shown = {cells[0]: (cells[2], cells[4]) for cells in sampled[1:]}
    for place, choices in enumerate((found["next"], found["sampled"]["next"])):
        for text, _, probability in choices:
            assert shown[figures.token_name(text)][place] == unbroken(figures.percent(probability))


def test_each_predicted_token_has_a_table_of_its_alternatives(found):
    html = page(found)
    shown = re.findall(r'<table class="bars" data-place="(\d+)">(.*?)</table>', html, re.DOTALL)
    assert [int(place) for place, _ in shown] == [i for i, row in enumerate(found["tokens"]) if row["top"]]
    for place, table in shown:
        percents = re.findall(r"[\d.<&lt;]+\xa0%", table)
        assert percents == [
            unbroken(figures.percent(probability)).replace("<", "&lt;")
            for _, _, probability in found["tokens"][int(place)]["top"]
        ]


def test_tables_have_the_lens_and_the_scores_of_the_heads(found):
    tables = Tags(page(found)).tables
    for key, caption in (("probability", "likeliest token"), ("next", "true next token"), ("kl", "Divergence")):
        [rows] = [rows for name, rows in tables.items() if caption in name and not name.startswith("The likeliest")]
        expected = [[figures.number(place[key], 3) for place in row["places"]] for row in found["lens"]]
        assert [cells[1:] for cells in rows[1:]] == expected
    for row, cells in zip(found["lens"], tables["At the end of the prompt"][1:], strict=True):
        assert cells[1:3] == [figures.number(row["target_logprob"]), figures.number(row["kl"], 3)]
    words = tables["The likeliest next token after each part of each layer"][1:-1]
    assert [cells[1:] for cells in words] == [
        [figures.token_name(place["text"]) for place in row["places"]] for row in found["lens"]
    ]
    [scores] = [rows for caption, rows in tables.items() if caption.startswith("Mean weight")]
    for head, cells in zip(found["heads"], scores[2:], strict=True):
        values = [*(head[key] for key in SCORES), *(head["repeated"][key] for key in SCORES)]
        assert cells == [f"{head['layer']}.{head['head']}", head["label"], *map(figures.number, values)]


def test_tables_have_every_part_of_attribution_and_ablation(found):
    tables = Tags(page(found)).tables
    contributions = {row["part"]: row["contribution"] for row in found["attribution"]["parts"]}
    changes = {row["part"]: row["change"] for row in found["ablation"]}
    shown = {
        "What each head, the bias of attention, and each MLP adds": contributions,
        "Change of the target without this head or MLP": changes,
    }
    for caption, values in shown.items():
        [[_, *columns], *rows] = tables[caption]
        inside = {name: value for name, value in values.items() if name[0].isdigit() or name[:3] in ("mlp", "att")}
        digits = figures.digits(max(map(abs, inside.values())))
        expected = {name: figures.number(value, digits) for name, value in inside.items()}
        cells = [(row[0], column, cell) for row in rows for column, cell in zip(columns, row[1:], strict=True)]
        assert {_part(layer, column): cell for layer, column, cell in cells} == expected
    together = tables["All parts together"]
    assert together[-1][-1] == figures.number(found["attribution"]["logit"])
    added = sum(float(cells[2].replace("−", "-")) for cells in together[1:-1])
    assert added == pytest.approx(found["attribution"]["logit"], abs=0.01 * len(together))


def test_tables_have_the_saliency(found):
    tables = Tags(page(found)).tables
    for row, cells in zip(found["saliency"]["tokens"], tables["What each token adds"][1:], strict=True):
        values = (row["integrated_gradients"], row["gradient_x_input"])
        assert cells == [figures.token_name(row["text"]), *(figures.number(value, 4) for value in values)]


def test_tables_have_the_patching_without_the_tokens_that_both_prompts_begin_with(found):
    html = page(found)
    tables = Tags(html).tables
    captions = {"stream": "residual stream", "attn": "each attention", "mlp": "each MLP,", "heads": "each head,"}
    for key, caption in captions.items():
        [rows] = [rows for name, rows in tables.items() if caption in name and name.startswith("The ")]
        left_out = 0 if key == "heads" else SHARED
        assert [cells[1:] for cells in rows[1:]] == [
            [figures.number(value) for value in row[left_out:]] for row in found["patching"][key]
        ]
        assert not any(value for row in found["patching"][key] for value in row[:left_out])
    assert "All numbers of the first 1 token are 0 and are left out." in html
    patching = {**found["patching"], "stream": [[1.0, *row[1:]] for row in found["patching"]["stream"]]}
    assert "left out." not in page({**found, "patching": patching})


def test_tables_have_both_models():
    found = explained(subject("random", target=TARGET, foil=FOIL), TEXT, other=True)
    tables = Tags(page(found)).tables
    compared = found["compared"]
    captions = {"lens": "Logit lens: log-probability", "attribution": "Contribution to"}
    changes = {"lens": "Logit lens: change", "attribution": "The largest changes of direct"}
    for key, caption in captions.items():
        [rows] = [rows for name, rows in tables.items() if name.startswith(caption)]
        values = {row["name"]: (row["before"], row["after"], row["after"] - row["before"]) for row in compared[key]}
        assert rows[1:] == [
            [name, *(figures.number(value, 3) for value in of_part)] for name, of_part in values.items()
        ]
        [rows] = [rows for name, rows in tables.items() if name.startswith(changes[key])]
        digits = figures.digits(max(abs(change) for _, _, change in values.values()))
        assert all(cells[2] == figures.signed(values[cells[0]][2], digits) for cells in rows[1:])
        assert len(rows) - 1 == (len(values) if key == "lens" else min(20, len(values)))
    for row, cells in zip(compared["next"], tables["Probability of the next token"][1:], strict=True):
        assert cells[0] == figures.token_name(row["name"])
        assert cells[2::2] == [unbroken(figures.percent(row[key])) for key in ("before", "after")]


def test_a_section_for_each_part_that_was_found(found):
    expected = [key for key in KEYS.values() if key in found]
    html = page(found)
    assert sorted(sections(html)) == sorted(expected)
    links = [attributes["href"] for tag, attributes in Tags(html).tags if tag == "a"]
    assert links == [f"#{name}" for name in sections(html)]
    asked = {key: value for key, value in found.items() if key not in {*KEYS.values(), "sampled"}}
    assert sections(page(asked)) == [] and "<nav" not in page(asked)
    for part in expected:
        needed = {part: found[part]} | ({"sampled": found["sampled"]} if part == "next" else {})
        assert sections(page(asked | needed)) == [part]


def test_it_loads_nothing_and_names_no_address(found):
    html = page(found)
    assert_loads_nothing(html)
    assert not re.search(r"https?:|//\w+\.", html)


def test_references_between_elements_hold(found):
    tags = Tags(page(found)).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len({*ids})
    for name in ("aria-labelledby", "for", "href"):
        assert all(attributes[name].removeprefix("#") in ids for _, attributes in tags if name in attributes)
    assert all(
        attributes.get("aria-label")
        for tag, attributes in tags
        if tag == "button" and "head" in str(attributes.get("class"))
    )


def test_hostile_texts_are_text_and_nothing_else():
    text = "The" + HOSTILE
    about = subject("random", text, against="He" + HOSTILE)
    found = explained(about, text, name=HOSTILE, other=True)
    found["patching"]["against"] = found["compared"]["model"] = HOSTILE
    found["ablated"] = [HOSTILE]
    html = page(found)
    kinds = {tag for tag, _ in Tags(page(explained(subject("random", against=OTHER_TEXT), TEXT, other=True))).tags}
    assert {tag for tag, _ in Tags(html).tags} == kinds and "img" not in kinds
    assert "alert(2)" in Tags(html).text and not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", html)
    assert "[U+202E]" in html
    assert_loads_nothing(html)
    assert data(html)["found"]["prompt"] == text


def test_one_token():
    found = explained(subject("random", "The"), "The")
    html = page(found)
    assert "1 token" in html and "1 tokens" not in html
    assert sorted(sections(html)) == sorted(key for key in KEYS.values() if key in found)


def test_an_empty_prompt_is_named_by_its_token():
    found = explained(subject("random", "<|endoftext|>"), "")
    heading = re.search(r"<h1.*?</h1>", page(found))
    assert heading is not None and "&lt;|endoftext|&gt;" in heading[0]


def test_without_patterns_there_is_nothing_to_draw(found):
    heads = [{**head, "pattern": None} for head in found["heads"]]
    html = page({**found, "heads": heads})
    assert "<canvas" not in html and "too long" in html
    assert len(Tags(html).tables) == len(Tags(page(found)).tables) - 1  # the table of the opened head


def test_64_tokens_of_the_small_gpt2_take_less_than_2_mb():
    assert len(page(made_up(n_layer=12, n_head=12, ids=encode(" internationally" * 64)[:64])).encode()) < 2_000_000


def unbroken(text: str) -> str:
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _part(layer: str, column: str) -> str:
    """The name of the part in a cell of a map."""
    kinds = {"MLP": f"mlp.{layer}", "bias": f"attn.{layer}.bias"}
    return kinds.get(column, f"{layer}.{column.removeprefix('head ')}")
