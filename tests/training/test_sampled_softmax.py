"""The sampled softmax estimates the whole one."""

import pytest
import torch

from gpt2cli.data.dataset import from_sequences
from gpt2cli.training.loss import summed_cross_entropy
from gpt2cli.training.sampled_softmax import Negatives, inclusion, sampled_cross_entropy

V = 400


@pytest.fixture
def case():
    torch.manual_seed(0)
    tokens = (torch.rand(4000) ** 3 * V).int().to(torch.uint16)
    hidden, head = torch.randn(60, 16, requires_grad=True), (torch.randn(V, 16) * 0.3).requires_grad_()
    return from_sequences([tokens], [1]), hidden, head, torch.randint(0, V, (60,))


def test_every_token_drawn_is_the_whole_softmax(case):
    data, hidden, head, targets = case
    ids, log_probability = Negatives(data, V, V + 1).draw(0, hidden.device)
    assert ids.tolist() == list(range(V)) and not log_probability.any()
    sampled = sampled_cross_entropy(hidden, head, targets, (ids, log_probability))
    whole = summed_cross_entropy(hidden, head, targets)
    torch.testing.assert_close(sampled, whole)
    for ours, theirs in zip(
        torch.autograd.grad(sampled, (hidden, head)), torch.autograd.grad(whole, (hidden, head)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_the_sum_over_drawn_tokens_is_unbiased(case):
    data, hidden, head, targets = case
    negatives = Negatives(data, V, 100)
    ids = [negatives.draw(seed, hidden.device) for seed in range(400)]
    logits = (hidden @ head.T).detach()
    estimates = [(logits[:, i] - log).exp().sum(-1) for i, log in ids]
    mean = torch.stack(estimates).mean(0)
    torch.testing.assert_close(mean, logits.exp().sum(-1), rtol=0.05, atol=0)
    losses = torch.stack([sampled_cross_entropy(hidden, head, targets, drawn) for drawn in ids])
    torch.testing.assert_close(losses.mean(), summed_cross_entropy(hidden, head, targets), rtol=0.02, atol=0)


def test_probabilities_grow_with_the_count_and_sum_to_the_size(case):
    data = case[0]
    probability = Negatives(data, V, 100).probability
    assert probability.sum().item() == pytest.approx(100, rel=1e-4)
    assert probability.min() > 0 and probability.max() <= 1
    counts = torch.bincount(data.tokens.int(), minlength=V)
    assert probability[counts.argsort()].diff().min() >= 0


def test_probabilities_stop_at_one():
    assert inclusion(torch.tensor([1000.0, 1.0, 1.0, 2.0]), 3).tolist() == [1, 0.5, 0.5, 1]
    assert inclusion(torch.ones(4), 9).tolist() == [1, 1, 1, 1]


def test_the_same_seed_draws_the_same(case):
    negatives = Negatives(case[0], V, 50)
    first, again, other = (negatives.draw(seed, case[1].device)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
