"""What comes next: what is shown is what `generate` samples."""

from collections import Counter

import pytest
import torch

from gpt2cli.config import ExplainConfig, SamplingConfig
from gpt2cli.generation.decode import generate_tokens
from gpt2cli.insight.next_token import next_token
from gpt2cli.insight.question import Question
from gpt2cli.insight.subject import Subject
from gpt2cli.tokenizer import show
from tests import models

SETTINGS = [
    SamplingConfig(temperature=1, top_k=0),
    SamplingConfig(),
    SamplingConfig(temperature=0.4, top_k=30, top_p=0.8),
    SamplingConfig(temperature=1.3, top_k=50, min_p=0.2),
    SamplingConfig(temperature=0.8, top_k=25, repetition_penalty=1.4),
]


def next_of(model, ids, sampling=SETTINGS[0], **config):
    [found] = next_token(Subject(model, Question(tuple(ids)), sampling), ExplainConfig(**config))
    return found


@torch.no_grad()
def test_without_settings_it_is_the_models_distribution(model, ids):
    probabilities = model(torch.tensor([ids]))[0, -1].double().softmax(dim=-1)
    best, best_ids = probabilities.topk(10)
    found = next_of(model, ids)
    assert [choice.id for choice in found.top] == best_ids.tolist()
    assert [choice.probability for choice in found.top] == pytest.approx(best.tolist(), rel=1e-4)
    assert [choice.text for choice in found.top] == [show(id) for id in best_ids.tolist()]
    assert found.sampled == found.top
    assert found.settings["temperature"] == 1


@pytest.mark.parametrize("sampling", SETTINGS[1:], ids=str)
def test_it_is_what_generate_samples(model, sampling, ids):
    """Chi-square of 1,000 samples, with the tokens that were expected fewer than 5 times in one class."""
    found = next_of(model, ids, sampling, top=60).sampled
    assert sum(choice.probability for choice in found) == pytest.approx(1)
    one = SamplingConfig(**{**vars(sampling), "max_new_tokens": 1})
    batches = [range(start, start + 500) for start in range(0, 1000, 500)]
    counts = Counter(
        token for seeds in batches for _, token in generate_tokens(model, [ids] * len(seeds), one, list(seeds))
    )
    assert set(counts) <= {choice.id for choice in found}
    expected = {choice.id: 1000 * choice.probability for choice in found}
    classes = [(expected[id], counts[id]) for id in expected if expected[id] >= 5]
    rest = [(expected[id], counts[id]) for id in expected if expected[id] < 5]
    if rest and sum(e for e, _ in rest) >= 5:
        classes.append((sum(e for e, _ in rest), sum(c for _, c in rest)))
    statistic = sum((count - e) ** 2 / e for e, count in classes)
    freedom = max(1, len(classes) - 1)
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5 + 5


def test_at_temperature_0_the_likeliest_token_is_certain(model, ids):
    found = next_of(model, ids, SamplingConfig(temperature=0))
    [certain] = found.sampled
    assert (certain.id, certain.probability) == (found.top[0].id, 1)


def test_tokens_that_the_settings_exclude_are_left_out(ids):
    found = next_of(models.small_model(), ids, SamplingConfig(temperature=1, top_k=3), top=10)
    assert len(found.top) == 10
    assert [choice.id for choice in found.sampled] == [choice.id for choice in found.top[:3]]
    total = sum(choice.probability for choice in found.top[:3])
    for bare, sampled in zip(found.top, found.sampled, strict=False):
        assert sampled.probability == pytest.approx(bare.probability / total)


def test_target_and_foil_come_after_the_likeliest_tokens():
    model, prompt = models.small_model(), (1, 2, 3)
    everything = next_of(model, prompt, top=100).top
    first, foil, target = everything[0], everything[30], everything[60]
    subject = Subject(model, Question(prompt, target=target.id, foil=foil.id), SamplingConfig(top_k=40))
    [found] = next_token(subject, ExplainConfig(top=3))
    assert found.top == (*everything[:3], foil, target)
    assert [choice.id for choice in found.sampled] == [*(choice.id for choice in everything[:3]), foil.id]
    [found] = next_token(Subject(model, Question(prompt, target=first.id)), ExplainConfig(top=3))
    assert found.top == everything[:3]
