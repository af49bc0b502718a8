"""The page of an explanation: one HTML file with pictures, tables, and the numbers of `gpt2 explain --json`."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from gpt2cli import html_page
from gpt2cli.insight import page_figures as figures
from gpt2cli.tokenizer import show

TITLE = 60
"""Characters of the prompt in the page's title."""
HEADING = 300
"""Characters of the prompt in the page's heading. The section about its tokens has all of it."""
SCORES = {
    "previous": "previous token",
    "duplicate": "duplicate token",
    "induction": "induction",
    "first": "first token",
    "entropy": "entropy (nats)",
}
"""The scores of a head, and how the page calls them."""
FILTERS: html_page.Filters = {
    "token": figures.token_name,
    "one_line": figures.one_line,
    "number": figures.number,
    "signed": figures.signed,
    "percent": figures.percent,
    "bits": lambda nats: None if nats is None else abs(nats) / figures.LOG_2,
    "shade": figures.shade,
    "signed_shade": figures.signed_shade,
    "bars": figures.bars,
    "part_map": figures.part_map,
    "largest": figures.largest,
    "digits": figures.digits,
    "sums": figures.sums,
    "changes": lambda rows: {row["name"]: row["after"] - row["before"] for row in rows},
    "both_models": lambda rows: [
        (row["name"], (row["before"], row["after"], row["after"] - row["before"])) for row in rows
    ],
    "by_layer": lambda rows, start=0: [(layer, row[start:]) for layer, row in enumerate(rows)],
    "lens_part": figures.lens_part,
    "lens_rows": lambda rows, key: [(figures.lens_part(row), [place[key] for place in row["places"]]) for row in rows],
    "zip": zip,
    "hex": lambda content: bytes(content).hex(" "),
}


def page(found: Mapping[str, Any]) -> str:
    """The page in HTML, of the object that `gpt2 explain --json` prints. Parts that are missing have no section."""
    names = [figures.token_name(show(id)) for id in found["ids"]]
    prompt = figures.one_line(found["prompt"]) or "".join(names)
    values = {
        "found": found,
        "names": names,
        "target": figures.token_name(found["target"]["text"]),
        "foil": figures.token_name(found["foil"]["text"]) if found["foil"] else None,
        "heading": _shortened(prompt, HEADING),
        "title": f"{_shortened(prompt, TITLE)} · {found['model']}",
        "data": embedded({"found": packed(found), "names": names, "scores": SCORES}),
        "scores": SCORES,
        "next": _before_and_after(found),
        "next_compared": [
            (figures.token_name(row["name"]), row["before"], row["after"])
            for row in found.get("compared", {}).get("next", ())
        ],
        "attribution": _by_name(found.get("attribution", {}).get("parts", ()), "contribution"),
        "ablation": _by_name(found.get("ablation", ()), "change"),
        "unchanged": _unchanged(found["patching"]) if "patching" in found else 0,
        "scale": {
            "bits": figures.BITS,
            "probability": figures.PROBABILITIES,
            "divergence": figures.DIVERGENCES,
        },
    }
    return html_page.render("insight", values, FILTERS)


def packed(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same object with each attention pattern as one text, 6 times smaller.

    It is base64 of one byte for each probability, 255 for 1, row after row: row i has i + 1 of them.
    """
    if "heads" not in found:
        return dict(found)
    return {**found, "heads": [{**head, "pattern": _pattern(head["pattern"])} for head in found["heads"]]}


def embedded(value: Any) -> str:
    """JSON that cannot end the element that it stands in: ASCII without <, > and &."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _pattern(rows: Sequence[Sequence[float]] | None) -> str | None:
    if rows is None:
        return None
    return base64.b64encode(bytes(round(255 * min(1.0, weight)) for row in rows for weight in row)).decode()


def _shortened(text: str, length: int) -> str:
    """The text, or its two ends if it is longer than `length`."""
    return text if len(text) <= length else f"{text[: length // 2].rstrip()} … {text[-length // 2 :].lstrip()}"


def _before_and_after(found: Mapping[str, Any]) -> list[tuple[str, float | None, float | None]]:
    """Tokens that may come next: name, probability, probability after the sampling settings."""
    before = {id: (text, probability) for text, id, probability in found.get("next", ())}
    after = {id: (text, probability) for text, id, probability in found.get("sampled", {}).get("next", ())}
    texts = {id: text for id, (text, _) in (after | before).items()}
    return [
        (figures.token_name(texts[id]), before.get(id, ("", None))[1], after.get(id, ("", None))[1])
        for id in dict.fromkeys([*before, *after])
    ]


def _unchanged(patching: Mapping[str, Any]) -> int:
    """The number of first places whose values change nothing, such as those where both prompts have the same tokens."""
    rows = [*patching["stream"], *patching["attn"], *patching["mlp"]]
    return next((place for place, values in enumerate(zip(*rows, strict=True)) if any(values)), 0)


def _by_name(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    return {row["part"]: row[key] for row in rows}
