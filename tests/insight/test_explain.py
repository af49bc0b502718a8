"""The engine as a library: what `gpt2cli.explain` yields."""

import pytest

import gpt2cli
from gpt2cli.config import ExplainConfig
from gpt2cli.errors import DivergedError, UsageError
from gpt2cli.insight.events import Advanced
from gpt2cli.insight.explain import FINDERS
from gpt2cli.insight.limits import PARTS
from gpt2cli.progress import Note
from tests import models

MODEL = models.small_model()


def test_every_part_has_a_finder_in_its_order() -> None:
    assert tuple(FINDERS) == PARTS


def test_findings_come_in_order_and_long_parts_say_how_far_they_are() -> None:
    events = [*gpt2cli.explain(MODEL, "One two three", against="One six three", config=ExplainConfig(top=3))]
    findings = [event for event in events if not isinstance(event, Advanced | Note)]
    assert [finding.part for finding in findings] == [*PARTS]
    assert all(event.done <= event.total for event in events if isinstance(event, Advanced))
    assert {event.part for event in events if isinstance(event, Advanced)} >= {"saliency", "ablation", "patching"}
    keys = [key for finding in findings for key in finding.as_dict()]
    assert len(set(keys)) == len(keys)


def test_a_second_model_is_compared_last() -> None:
    events = [*gpt2cli.explain(MODEL, "One", parts=["next"], other=models.small_model(seed=1), target="two three")]
    assert isinstance(events[0], Note) and [event.part for event in events if hasattr(event, "part")] == [
        "next",
        "compared",
    ]


def test_what_cannot_be_explained() -> None:
    likeliest = next(iter(gpt2cli.explain(MODEL, "One", parts=["next"]))).top[0].text  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="is the token that is explained: choose another --target"):
        [*gpt2cli.explain(MODEL, "One.", foil=likeliest, target=likeliest)]
    with pytest.raises(UsageError, match="window"):
        [*gpt2cli.explain(MODEL, " x" * 38)]
    broken = models.small_model()
    broken.ln_f.bias.data.fill_(float("nan"))
    with pytest.raises(DivergedError, match="not finite"):
        [*gpt2cli.explain(broken, "One", parts=["next"])]
