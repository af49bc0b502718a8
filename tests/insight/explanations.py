"""Objects as `gpt2 explain --json` prints them, for tests of what shows them."""

import random
from typing import Any

from gpt2cli.config import ExplainConfig
from gpt2cli.insight.explain import find
from gpt2cli.insight.explanation import Explanation
from gpt2cli.insight.limits import PARTS
from gpt2cli.insight.page import SCORES
from gpt2cli.insight.subject import Subject, token
from tests.models import small_model

CONFIG = ExplainConfig(top=3, steps=4)


def explained(about: Subject, text: str, name: str = "random", other: bool = False) -> dict[str, Any]:
    """The object of `gpt2 explain --json` about a subject, with all parts that it allows."""
    parts = [part for part in PARTS if part != "patching" or about.question.against]
    second = small_model(seed=1) if other else None
    findings = [event for event in find(about, parts, CONFIG, second) if hasattr(event, "as_dict")]
    target = token(about.target)
    return Explanation(
        name, text, about.question.prompt, target, about.foil, config=CONFIG, findings=findings
    ).as_dict()


def made_up(n_layer: int, n_head: int, ids: list[int]) -> dict[str, Any]:
    """An object like that of `gpt2 explain --json` with random numbers."""
    draw = random.Random(0)
    text, places = " internationally", range(len(ids))

    def choices() -> list[Any]:
        return [[text, 1, draw.random()] for _ in range(10)]

    def matrix(columns: int) -> list[list[float]]:
        return [[draw.gauss(0, 1) for _ in range(columns)] for _ in range(n_layer)]

    def lens_row(layer: int | None, after: str) -> dict[str, Any]:
        numbers = {
            "layer": layer,
            "after": after,
            "top": choices(),
            "target_logprob": -draw.random(),
            "kl": draw.random(),
        }
        place = ("probability", "next", "kl")
        return numbers | {"places": [{"text": text, "id": 1} | {key: draw.random() for key in place} for _ in places]}

    def head(layer: int, number: int) -> dict[str, Any]:
        scores = {key: draw.random() for key in SCORES}
        pattern = [[draw.random() for _ in range(i + 1)] for i in places]
        return {"layer": layer, "head": number, "label": "previous", **scores, "repeated": scores, "pattern": pattern}

    word = {"text": text, "id": 1, "bytes": [*text.encode()]}
    numbers = ("logprob", "rank", "entropy")
    names = [f"{layer}.{number}" for layer in range(n_layer) for number in range(n_head)]
    names += [f"mlp.{layer}" for layer in range(n_layer)]
    return {
        "model": "gpt2",
        "prompt": text * len(ids),
        "ids": ids,
        "bos": False,
        "target": word,
        "foil": None,
        "ablated": [],
        "settings": {"ablation": "zero"},
        "tokens": [word | {key: -draw.random() for key in numbers} | {"top": choices()} for _ in places],
        "next": choices(),
        "sampled": {"temperature": 0.7, "next": choices()},
        "lens": [
            lens_row(None, "embedding"),
            *(lens_row(i, after) for i in range(n_layer) for after in ("attn", "mlp")),
        ],
        "heads": [head(layer, number) for layer in range(n_layer) for number in range(n_head)],
        "attribution": {"logit": 1.0, "parts": [{"part": name, "contribution": draw.gauss(0, 1)} for name in names]},
        "ablation": [{"part": name, "change": draw.gauss(0, 1)} for name in names],
        "saliency": {
            "difference": 1.0,
            "gap": 0.1,
            "steps": 32,
            "tokens": [
                word | {"gradient_x_input": draw.random(), "integrated_gradients": draw.random()} for _ in places
            ],
        },
        "patching": {
            "against": text * len(ids),
            "clean": 1.0,
            "corrupted": 0.0,
            "stream": matrix(len(ids)),
            "attn": matrix(len(ids)),
            "mlp": matrix(len(ids)),
            "heads": matrix(n_head),
        },
    }
