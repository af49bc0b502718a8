import dataclasses

import pytest

from gpt2cli.config import ExplainConfig
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.insight.attribution import contributions
from gpt2cli.insight.compared import compared
from gpt2cli.insight.findings import Compared
from gpt2cli.insight.lens import lens
from gpt2cli.model.gpt import GPT
from gpt2cli.progress import Note
from tests.insight.subjects import FOIL, TARGET, finding, model, subject
from tests.models import SMALL, small_model

PARTS = ("next", "lens", "attribution")


def found(other: GPT, parts=PARTS, **question: int) -> Compared:
    return finding(compared(subject("random", **question), other, parts, ExplainConfig()))


def test_numbers_are_those_of_each_model() -> None:
    other = small_model(seed=1)
    result = found(other, target=TARGET, foil=FOIL)
    first = subject("random", target=TARGET, foil=FOIL)
    second = dataclasses.replace(first, model=other)
    for place, each in (("before", first), ("after", second)):
        assert {d.name: getattr(d, place) for d in result.attribution} == {
            part.part: part.contribution for part in contributions(each)
        }
        rows = finding(lens(each, ExplainConfig())).rows
        assert [getattr(d, place) for d in result.lens] == pytest.approx([row.target_logprob for row in rows], abs=1e-5)
        names = ["embedding" if row.layer is None else f"{row.after}.{row.layer}" for row in rows]
        assert [d.name for d in result.lens] == names


def test_next_has_the_likeliest_tokens_of_both() -> None:
    other = small_model(seed=1)
    of = subject("random")
    rows = found(other).next
    probabilities = [each(of.idx)[0, -1].softmax(0) for each in (of.model, other)]
    for place, values in zip(("before", "after"), probabilities, strict=True):
        best = values.topk(10).values.tolist()
        assert sorted((getattr(row, place) for row in rows), reverse=True)[:10] == pytest.approx(best, rel=1e-4)
    assert len(rows) <= 20


def test_a_model_does_not_differ_from_itself() -> None:
    result = found(model("random"))
    assert len(result.next) == 10
    for part in PARTS:
        rows = getattr(result, part)
        assert rows
        assert [row.before for row in rows] == [row.after for row in rows]


@pytest.mark.parametrize(("change", "left_out"), [({"n_layer": 1}, PARTS[1:]), ({"n_head": 2}, PARTS[2:])])
def test_parts_by_layer_are_left_out_for_another_shape(change, left_out) -> None:
    other = small_model(dataclasses.replace(SMALL, **change))
    *notes, result = compared(subject("random"), other, PARTS, ExplainConfig())
    assert all(isinstance(note, Note) for note in notes)
    assert [note.text.split()[0] for note in notes] == list(left_out)
    assert [part for part in PARTS if not getattr(result, part)] == list(left_out)


def test_only_chosen_parts_are_compared() -> None:
    result = found(model("random"), ["lens", "saliency"])
    assert result.lens
    assert result.next == result.attribution == ()


def test_the_target_is_the_first_models() -> None:
    of, other = subject("random"), small_model(seed=1)
    assert int(other(of.idx)[0, -1].argmax()) != of.target
    result = found(other)
    assert result.target.id == of.target
    assert result.lens[-1].after == pytest.approx(other(of.idx)[0, -1].log_softmax(0)[of.target].item(), abs=1e-5)


def test_the_second_model_must_know_the_tokens_and_have_the_window() -> None:
    with pytest.raises(CheckpointError):
        found(small_model(dataclasses.replace(SMALL, vocab_size=100)))
    with pytest.raises(UsageError):
        found(small_model(dataclasses.replace(SMALL, block_size=4)))


def test_a_padded_vocabulary_can_be_compared() -> None:
    result = found(small_model(dataclasses.replace(SMALL, vocab_size=50304)))
    assert len(result.next) >= 10
