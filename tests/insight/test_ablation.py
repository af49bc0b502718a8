import pytest
import torch

from gpt2cli.config import ExplainConfig
from gpt2cli.insight import swaps
from gpt2cli.insight.ablation import ablation
from gpt2cli.insight.events import Advanced
from gpt2cli.insight.findings import Ablation
from gpt2cli.insight.passes import Site, logits, trace
from gpt2cli.insight.subject import Subject
from gpt2cli.insight.swaps import Swap, measure_swaps
from tests.insight.subjects import FOIL, MODELS, TARGET, TEXT, finding, subject


def found(of: Subject, how: str = "zero") -> Ablation:
    return finding(ablation(of, ExplainConfig(ablation=how)))


def changed_logprob(of: Subject, part: str) -> float:
    """The change after the part's weights were set to zero. The model keeps them."""
    gpt = of.model
    before = gpt(of.idx)[0, -1].log_softmax(0)[of.target]
    kind, _, number = part.partition(".")
    with torch.no_grad():
        if kind == "mlp":
            output = gpt.h[int(number)].mlp.c_proj
            output.weight.zero_()
            output.bias.zero_()
        else:
            size = gpt.config.n_embd // gpt.config.n_head
            gpt.h[int(kind)].attn.c_proj.weight[:, int(number) * size :][:, :size] = 0
        return float(gpt(of.idx)[0, -1].log_softmax(0)[of.target] - before)


@pytest.mark.parametrize("part", ["0.0", "0.2", "1.1", "mlp.0", "mlp.1"])
@pytest.mark.parametrize("name", MODELS)
def test_a_change_is_that_of_a_model_without_the_parts_weights(name, part) -> None:
    of = subject(name)
    changes = {row.part: row.change for row in found(of).rows}
    assert changes[part] == pytest.approx(changed_logprob(of, part), abs=2e-5)


def test_a_head_without_weights_changes_nothing() -> None:
    of = subject("random")
    with torch.no_grad():
        of.model.h[0].attn.c_proj.weight[:, 16:32] = 0
    changes = {row.part: row.change for row in found(of).rows}
    assert changes["0.1"] == pytest.approx(0, abs=1e-5)
    assert abs(changes["0.0"]) > 1e-4


@pytest.mark.parametrize("how", ["zero", "mean"])
def test_with_a_foil_the_difference_of_logits_is_measured(how) -> None:
    both = found(subject("untied", target=TARGET, foil=FOIL), how)
    targets, foils = (found(subject("untied", target=id), how) for id in (TARGET, FOIL))
    for difference, one, other in zip(both.rows, targets.rows, foils.rows, strict=True):
        # log-probabilities and logits differ by the same number for all tokens
        assert difference.change == pytest.approx(one.change - other.change, abs=2e-5)


def test_the_mean_over_a_single_token_is_its_value() -> None:
    of = subject("random", "The")
    assert all(row.change == pytest.approx(0, abs=1e-5) for row in found(of, "mean").rows)
    assert any(abs(row.change) > 1e-3 for row in found(of, "zero").rows)


def test_a_mean_is_taken_over_the_prompt() -> None:
    of = subject("random")
    mean = of.trace.mlp[1][0].mean(0)
    passed = trace(of.model, of.idx, {(1, Site.MLP): lambda values: mean.expand_as(values)})
    with torch.no_grad():
        changed = logits(of.model, passed.final[0, -1]).log_softmax(0) - of.last_logits.log_softmax(0)
    assert found(of, "mean").rows[-1].change == pytest.approx(float(changed[of.target]), abs=1e-5)


def test_long_prompts_are_measured_in_several_batches(monkeypatch) -> None:
    whole = found(subject("random"))
    monkeypatch.setattr(swaps, "TOKENS_AT_ONCE", 2 * len(subject("random").question.prompt))
    in_batches = found(subject("random"))
    for one, other in zip(whole.rows, in_batches.rows, strict=True):
        assert one.change == pytest.approx(other.change, abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_swap_of_a_value_with_itself_changes_nothing(name) -> None:
    of = subject(name, TEXT)
    same = [
        Swap(Site.HEADS, 1, of.trace.mixes[1][0, 1]),
        Swap(Site.MLP, None, of.trace.mlp[1][0]),
        Swap(Site.ATTENTION, 2, of.trace.attention[1][0, 2]),
        Swap(Site.STREAM, 3, of.trace.streams()[2][0, 3]),
    ]
    measured = measure_swaps(of.model, of.trace.streams()[2], 1, same, of.measure)
    assert measured == pytest.approx([float(of.measure(of.last_logits))] * 4, abs=2e-5)


def test_progress_is_told_after_each_layer() -> None:
    *advances, last = ablation(subject("random"), ExplainConfig())
    assert advances == [Advanced("ablation", 1, 2), Advanced("ablation", 2, 2)]
    assert isinstance(last, Ablation)
    assert [row.part for row in last.rows] == ["0.0", "0.1", "0.2", "mlp.0", "1.0", "1.1", "1.2", "mlp.1"]
