import pytest
import torch

from gpt2cli.config import ExplainConfig
from gpt2cli.insight.attribution import attribution, contributions
from gpt2cli.insight.findings import Attribution
from gpt2cli.insight.question import Question
from gpt2cli.insight.subject import Subject
from tests.insight.subjects import FOIL, MODELS, TARGET, TEXT, finding, model, subject
from tests.models import small_model


def found(of: Subject) -> Attribution:
    return finding(attribution(of, ExplainConfig()))


@pytest.mark.parametrize("text", [TEXT, "The"])
@pytest.mark.parametrize("question", [{}, {"target": TARGET}, {"target": TARGET, "foil": FOIL}])
@pytest.mark.parametrize("name", MODELS)
def test_contributions_add_up_to_the_logit_and_to_the_difference(name, question, text) -> None:
    of = subject(name, text, **question)
    logits = of.model(of.idx)[0, -1].detach()
    logit = logits[of.target] - (logits[FOIL] if "foil" in question else 0)
    result = found(of)
    assert result.logit == pytest.approx(float(logit), abs=1e-4)
    assert sum(part.contribution for part in result.parts) == pytest.approx(result.logit, abs=1e-4)


def test_a_part_without_weights_adds_nothing_and_the_others_are_parts_of_the_stream() -> None:
    gpt = small_model()
    with torch.no_grad():
        gpt.h[1].attn.c_proj.weight[:, 16:32] = 0  # head 1 of 3, with 16 channels
        gpt.h[0].mlp.c_proj.weight.zero_()
        gpt.h[0].mlp.c_proj.bias.zero_()
        gpt.h[0].attn.c_proj.bias.zero_()
        gpt.ln_f.bias.zero_()
    parts = {part.part: part.contribution for part in contributions(Subject(gpt, Question((5, 6, 7), target=8)))}
    zero = {name for name, value in parts.items() if value == 0}
    assert zero == {"1.1", "mlp.0", "attn.0.bias", "ln_f.bias"}


def test_parts_have_the_order_of_the_stream() -> None:
    names = [part.part for part in found(subject("random")).parts]
    layers = [[f"{n}.0", f"{n}.1", f"{n}.2", f"attn.{n}.bias", f"mlp.{n}"] for n in range(2)]
    assert names == ["embedding", "position", *layers[0], *layers[1], "ln_f.bias"]


def test_contributions_to_a_difference_are_differences_of_contributions() -> None:
    of, minus = subject("untied", target=TARGET), subject("untied", target=FOIL)
    both = contributions(subject("untied", target=TARGET, foil=FOIL))
    for one, other, difference in zip(contributions(of), contributions(minus), both, strict=True):
        assert difference.contribution == pytest.approx(one.contribution - other.contribution, abs=1e-6)


def test_exchanged_heads_exchange_their_contributions() -> None:
    gpt = model("random")
    before = {part.part: part.contribution for part in contributions(Subject(gpt, Question((1, 2, 3), target=4)))}
    attention = gpt.h[0].attn
    order = torch.arange(48).view(3, 16)[[2, 1, 0]].flatten()
    with torch.no_grad():
        attention.c_proj.weight.copy_(attention.c_proj.weight[:, order])
        rows = torch.cat([order, order + 48, order + 96])
        attention.c_attn.weight.copy_(attention.c_attn.weight[rows])
        attention.c_attn.bias.copy_(attention.c_attn.bias[rows])
    after = {part.part: part.contribution for part in contributions(Subject(gpt, Question((1, 2, 3), target=4)))}
    expected = before | {"0.0": before["0.2"], "0.2": before["0.0"]}
    assert after == pytest.approx(expected, abs=1e-5)
