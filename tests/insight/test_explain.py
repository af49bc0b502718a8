"""The engine as a library: what `gpt2cli.explain` yields."""

from typing import Any

import pytest

import gpt2cli
from gpt2cli.config import ExplainConfig
from gpt2cli.errors import DivergedError, UsageError
from gpt2cli.inference.decoder import as_decoder
from gpt2cli.insight.events import Advanced
from gpt2cli.insight.explain import FINDERS
from gpt2cli.insight.limits import PARTS
from gpt2cli.progress import Note
from tests import models

MODEL = models.small_model()


def test_every_part_has_a_finder_in_its_order() -> None:
    assert tuple(FINDERS) == PARTS


def test_findings_come_in_order_and_long_parts_say_how_far_they_are() -> None:
    events: list[Note | Advanced] = []
    question = {"against": "One six three", "target": " not so", "config": ExplainConfig(top=3)}
    findings = [*gpt2cli.explain(MODEL, "One two three", **question, progress=events.append)]  # type: ignore[arg-type]
    assert [finding.part for finding in findings] == [*PARTS]
    assert isinstance(events[0], Note) and "2 tokens" in events[0].text
    assert all(event.done <= event.total for event in events if isinstance(event, Advanced))
    assert {event.part for event in events if isinstance(event, Advanced)} >= {"saliency", "ablation", "patching"}
    keys = [key for finding in findings for key in finding.as_dict()]
    assert len(set(keys)) == len(keys)


def test_a_second_model_is_compared_last() -> None:
    findings = gpt2cli.explain(MODEL, "One", parts=["next"], other=models.small_model(seed=1), target="two three")
    assert [found.part for found in findings] == ["next", "compared"]


@pytest.mark.parametrize("prompt", [None, [3198], b"One"])
def test_a_prompt_is_a_text(prompt: Any) -> None:
    with pytest.raises(UsageError, match=r"the prompt must be a text, not .*: gpt2cli.decode makes a text"):
        next(gpt2cli.explain(MODEL, prompt))
    with pytest.raises(UsageError, match=r"the foil must be a text"):
        next(gpt2cli.explain(MODEL, "One", foil=3198))  # type: ignore[arg-type]


def test_parts_are_a_list() -> None:
    with pytest.raises(UsageError, match=r"parts is a list of names, .* and not one text, 'next'"):
        next(gpt2cli.explain(MODEL, "One", parts="next"))


def test_a_decoder_and_a_model_in_training_say_what_to_do() -> None:
    decoder: Any = as_decoder(MODEL)
    with pytest.raises(UsageError, match=r"use gpt2cli.load_plain in place of gpt2cli.load"):
        next(gpt2cli.explain(decoder, "One"))
    training = models.small_model().train()
    for model, other in ((training, None), (MODEL, training)):
        with pytest.raises(UsageError, match=r"in training mode, .*: call model.eval()"):
            [*gpt2cli.explain(model, "One", parts=["next"], other=other)]


def test_what_cannot_be_explained() -> None:
    likeliest = next(gpt2cli.explain(MODEL, "One", parts=["next"])).top[0].text  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="is the token that is explained: choose another --target"):
        [*gpt2cli.explain(MODEL, "One.", foil=likeliest, target=likeliest)]
    with pytest.raises(UsageError, match="window"):
        [*gpt2cli.explain(MODEL, " x" * 38)]
    broken = models.small_model()
    broken.ln_f.bias.data.fill_(float("nan"))
    with pytest.raises(DivergedError, match="not finite"):
        [*gpt2cli.explain(broken, "One", parts=["next"])]
