import pytest
import torch

from gpt2cli.config import ExplainConfig
from gpt2cli.insight import saliency as module
from gpt2cli.insight.findings import Saliency
from gpt2cli.insight.passes import logits, run_blocks
from gpt2cli.insight.saliency import saliency
from gpt2cli.insight.subject import Subject
from tests.insight.subjects import FOIL, MODELS, TARGET, TEXT, double, finding, subject


def found(of: Subject, steps: int = 32) -> Saliency:
    return finding(saliency(of, ExplainConfig(steps=steps)))


def measured(of: Subject, embedding: torch.Tensor) -> float:
    """The measured number for other token embeddings (T, C)."""
    with torch.no_grad():
        x = embedding + of.model.wpe.weight[: len(embedding)]
        return float(of.measure(logits(of.model, run_blocks(of.model, x[None])[0, -1])))


@pytest.mark.parametrize("question", [{}, {"target": TARGET, "foil": FOIL}])
@pytest.mark.parametrize("text", [TEXT, "The"])
@pytest.mark.parametrize("name", MODELS)
def test_integrated_gradients_add_up_to_the_difference_to_the_baseline(name, text, question) -> None:
    of = subject(name, text, **question)
    result = found(of, steps=64)
    embedding = of.model.wte(of.idx)[0].detach()
    difference = measured(of, embedding) - measured(of, torch.zeros_like(embedding))
    assert result.difference == pytest.approx(difference, abs=1e-4)
    total = sum(row.integrated_gradients for row in result.tokens)
    assert result.gap == pytest.approx(total - result.difference, abs=1e-6)
    assert total == pytest.approx(difference, abs=0.02 * max(1, abs(difference)))


@pytest.mark.parametrize("name", MODELS)
def test_the_gap_falls_with_the_steps(name) -> None:
    gaps = [abs(found(double(subject(name)), steps).gap) for steps in (1, 8, 64)]
    assert gaps[0] > 4 * gaps[1] > 16 * gaps[2]


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_finite_differences(name) -> None:
    of = double(subject(name, target=TARGET, foil=FOIL))
    embedding = of.model.wte(of.idx)[0].detach()
    for place, row in enumerate(found(of, steps=1).tokens):
        step = torch.zeros_like(embedding)
        step[place] = 1e-5 * embedding[place]
        slope = (measured(of, embedding + step) - measured(of, embedding - step)) / 2e-5
        assert row.gradient_x_input == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_long_prompts_are_computed_in_several_batches(monkeypatch) -> None:
    whole = found(subject("random"))
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 2 * len(whole.tokens))
    *advances, in_batches = saliency(subject("random"), ExplainConfig())
    assert [advance.done for advance in advances] == [*range(2, 33, 2), 33]
    assert advances[0].total == 33
    for one, other in zip(whole.tokens, in_batches.tokens, strict=True):
        assert one.gradient_x_input == pytest.approx(other.gradient_x_input, abs=1e-5)
        assert one.integrated_gradients == pytest.approx(other.integrated_gradients, abs=1e-5)


def test_the_model_is_left_as_it_was() -> None:
    of = subject("random")
    with torch.no_grad():
        found(of, steps=2)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in of.model.parameters())
