import pytest

from gpt2cli.config import ExplainConfig
from gpt2cli.insight.events import Advanced
from gpt2cli.insight.findings import Patching
from gpt2cli.insight.passes import Site, logits, trace
from gpt2cli.insight.patching import patching
from gpt2cli.insight.subject import Subject
from gpt2cli.insight.swaps import Swap, measure_swaps
from gpt2cli.progress import Note
from tests.insight.subjects import FOIL, MODELS, OTHER_TEXT, TARGET, TEXT, finding, subject


def found(of: Subject) -> Patching:
    return finding(patching(of, ExplainConfig()))


def result(of: Subject, edits: dict) -> float:
    """The measured number after an edited pass over the second prompt."""
    final = trace(of.model, of.idx.new_tensor([of.question.against]), edits).final
    return of.measure(logits(of.model, final[0, -1])).item()


@pytest.mark.parametrize("question", [{}, {"target": TARGET, "foil": FOIL}])
@pytest.mark.parametrize("name", MODELS)
def test_each_number_is_that_of_a_pass_with_one_value_of_the_other(name, question) -> None:
    of = subject(name, against=OTHER_TEXT, **question)
    patched = found(of)
    clean = of.trace

    def at(place: int, values):
        def edit(tensor):
            return tensor.index_copy(1, tensor.new_tensor([place]).long(), values[:, place : place + 1])

        return edit

    last = of.model.config.n_layer - 1
    edits = {
        (1, 4, "stream"): {(1, Site.STREAM): at(4, clean.streams()[2])},
        (0, 1, "attn"): {(0, Site.ATTENTION): at(1, clean.attention[0])},
        (last, 8, "mlp"): {(last, Site.MLP): at(8, clean.mlp[last])},
        (1, 2, "heads"): {(1, Site.HEADS): at(2, clean.mixes[1])},
    }
    unpatched = result(of, {})
    assert patched.corrupted == pytest.approx(unpatched, abs=1e-4)
    assert patched.clean == pytest.approx(float(of.measure(of.last_logits)), abs=1e-4)
    for (layer, index, site), edit in edits.items():
        restored = getattr(patched, site)[layer][index] * (patched.clean - patched.corrupted)
        assert restored == pytest.approx(result(of, edit) - unpatched, abs=1e-4)


@pytest.mark.parametrize("site", list(Site))
@pytest.mark.parametrize("name", MODELS)
def test_patching_a_run_with_itself_changes_nothing(name, site) -> None:
    of = subject(name)
    itself = {
        Site.STREAM: of.trace.streams()[2],
        Site.HEADS: of.trace.mixes[1],
        Site.ATTENTION: of.trace.attention[1],
        Site.MLP: of.trace.mlp[1],
    }[site][0]
    swaps = [Swap(site, index, value) for index, value in enumerate(itself)] + [Swap(site, None, itself)]
    measured = measure_swaps(of.model, of.trace.streams()[2], 1, swaps, of.measure)
    assert measured == pytest.approx([float(of.measure(of.last_logits))] * len(swaps), abs=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_patching_everything_gives_the_other_run(name) -> None:
    of = subject(name, against=OTHER_TEXT)
    layers = range(of.model.config.n_layer)
    outputs = [
        *((n, Site.ATTENTION, of.trace.attention[n]) for n in layers),
        *((n, Site.MLP, of.trace.mlp[n]) for n in layers),
    ]
    edits = {(layer, site): lambda _, value=value: value for layer, site, value in outputs}
    edits[0, Site.STREAM] = lambda _: of.trace.streams()[0]
    assert result(of, edits) == pytest.approx(float(of.measure(of.last_logits)), abs=1e-4)
    streams = [Swap(Site.STREAM, None, of.trace.streams()[2])]
    other = trace(of.model, of.idx.new_tensor([of.question.against])).streams()[2]
    assert measure_swaps(of.model, other, 1, streams, of.measure) == pytest.approx([result(of, edits)], abs=1e-4)


def test_the_only_token_carries_everything() -> None:
    patched = found(subject("random", "The", against="A", target=TARGET))
    assert [value for row in patched.stream for value in row] == pytest.approx([1, 1], abs=1e-3)
    assert len(patched.heads[0]) == 3


def test_places_before_the_first_other_token_change_nothing() -> None:
    patched = found(subject("random", against=OTHER_TEXT))
    for rows in (patched.stream, patched.attn, patched.mlp):
        assert [len(row) for row in rows] == [10, 10]
        assert all(row[0] == 0 and any(row[1:]) for row in rows)
    assert all(all(row) for row in patched.heads)


def test_prompts_with_equal_results_have_nothing_to_restore() -> None:
    [note] = patching(subject("random", against=TEXT), ExplainConfig())
    assert isinstance(note, Note)
    assert "no difference" in note.text and "give the target the logit" in note.text
    [note] = patching(subject("random", against=TEXT, target=TARGET, foil=FOIL), ExplainConfig())
    assert isinstance(note, Note) and "give target minus foil, in logits, " in note.text


def test_the_second_prompt_is_asked_about_the_first_ones_target() -> None:
    of = subject("random", against=OTHER_TEXT)
    assert found(of).target.id == of.target
    assert found(of).against == OTHER_TEXT


def test_progress_is_told_after_each_kind_of_value() -> None:
    *advances, last = patching(subject("random", "The", against="A"), ExplainConfig())
    assert advances == [Advanced("patching", done, 8) for done in range(1, 9)]
    assert isinstance(last, Patching)


def test_a_second_prompt_is_needed() -> None:
    with pytest.raises(ValueError, match="second prompt"):
        found(subject("random"))
