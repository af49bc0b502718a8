"""The sampler: equal to transformers' filters, and true to its distribution."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from gpt2cli.config import SamplingConfig
from gpt2cli.errors import DivergedError, UsageError
from gpt2cli.generation.sampling import Sampler, distribution, draw, largest, penalise_repetition

configs = st.builds(
    SamplingConfig,
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, 60),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.5, 2),
)


@settings(deadline=None)
@given(configs, st.integers(0, 1000), st.booleans())
def test_distribution_equals_transformers(config, seed, tied):
    torch.manual_seed(seed)
    logits, context = torch.randn(2, 50) * 3, torch.randint(50, (2, 12))
    if tied:  # top-p is left out, as transformers cuts among equal tokens by an order that means nothing
        logits, config = (logits * 2).round() / 2, replace(config, top_p=1.0)
    warpers = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(config.repetition_penalty)])
    warpers.append(TemperatureLogitsWarper(config.temperature))
    if config.top_k > 0:
        warpers.append(TopKLogitsWarper(config.top_k))
    if config.top_p < 1:
        warpers.append(TopPLogitsWarper(config.top_p))
    if config.min_p > 0:
        warpers.append(MinPLogitsWarper(config.min_p))
    theirs = warpers(context, logits.double()).softmax(-1)
    seen = [sorted(set(row)) for row in context.tolist()]
    penalised = penalise_repetition(logits.double(), seen, config.repetition_penalty)
    probabilities, ids = distribution(penalised, config)
    ours = torch.zeros(2, 50, dtype=torch.float64).scatter(1, ids, probabilities)
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_all_that_tie_with_the_kth_are_kept_in_the_order_of_their_ids(k):
    logits = torch.full((2, 50257), -9.0)
    logits[0, [7, 40_000, 3, 90]] = torch.tensor([3.0, 1.0, 1.0, 1.0])
    logits[1, :3] = torch.tensor([3.0, 2.0, 1.0])
    probabilities, ids = distribution(logits, SamplingConfig(temperature=1, top_k=k))
    kept = [ids[row][probabilities[row] > 0].tolist() for row in (0, 1)]
    assert kept == [[7] if k == 1 else [7, 3, 90, 40_000], [0, 1, 2][:k]]


@pytest.mark.parametrize("top_k", [0, 1, 5, 40])
def test_a_row_with_ties_and_a_device_that_cannot_wait_choose_the_same(top_k):
    """Every choice along the distribution, beside rows with more ties and fewer."""
    logits = (torch.randn(3, 331, generator=torch.Generator().manual_seed(2)) * 3).round() / 2
    logits[1] = torch.arange(331)
    config, uniform = SamplingConfig(temperature=1.5, top_k=top_k), torch.linspace(0, 1 - 1e-9, 97, dtype=torch.float64)
    probabilities, ids = distribution(logits, config)
    for number in uniform:
        together = draw(probabilities, ids, number.repeat(3)).tolist()
        assert Sampler(config, [0]).choose_on_device(logits, number.repeat(3))[0].tolist() == together
        alone = [draw(*distribution(logits[row : row + 1], config), number.repeat(1)).item() for row in range(3)]
        assert alone == together


def test_a_penalty_looks_at_new_tokens_alone_and_counts_each_once():
    class Context(list):
        def __getitem__(self, place):
            looked_at.append(len(range(*place.indices(len(self)))))
            return super().__getitem__(place)

    config, looked_at = SamplingConfig(temperature=0.9, repetition_penalty=1.3, top_k=0), []
    rng = torch.Generator().manual_seed(0)
    contexts = [Context([5, 5, 9]), Context([1])]
    sampler, others = Sampler(config, [1, 2]), Sampler(SamplingConfig(temperature=0.9, top_k=0), [1, 2])
    for _ in range(20):
        logits = torch.randn(2, 11, generator=rng)
        penalised = penalise_repetition(logits, [sorted(set(context)) for context in contexts], 1.3)
        expected = others.choose(penalised, contexts, [0, 1])
        assert sampler.choose(logits, contexts, [0, 1]) == expected
        for context, token in zip(contexts, expected, strict=True):
            context.append(token)
    assert looked_at == [3, 1] + [1] * 38


def test_draw_follows_the_distribution():
    probabilities = torch.tensor([[0.5, 0.25, 0.15, 0.1, 0.0]], dtype=torch.float64)
    n = 100_000
    uniform = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    drawn = draw(probabilities.expand(n, -1), torch.arange(5).expand(n, -1), uniform)
    shares = torch.bincount(drawn, minlength=5) / n
    torch.testing.assert_close(shares.double(), probabilities[0], atol=1e-4, rtol=0)


@settings(deadline=None)
@given(st.lists(st.floats(1e-9, 1), min_size=1, max_size=30), st.floats(0, 1, exclude_max=True))
def test_draw_never_takes_what_is_cut(weights, uniform):
    probabilities = torch.tensor([[*weights, 0.0, 0.0]], dtype=torch.float64)
    ids = torch.arange(len(weights) + 2)[None]
    [index] = draw(probabilities / probabilities.sum(), ids, torch.tensor([uniform], dtype=torch.float64))
    assert index < len(weights)


def test_choices_of_a_row_do_not_depend_on_its_batch():
    torch.manual_seed(0)
    logits = [torch.randn(3, 100) for _ in range(20)]
    config = SamplingConfig(temperature=1.5, top_k=0)
    together, alone = Sampler(config, [5, 6, 7]), Sampler(config, [6])
    for step in logits:
        assert together.choose(step, [[]] * 3, [0, 1, 2])[1:2] == alone.choose(step[1:2], [[]], [0])


def test_temperature_zero_takes_the_largest():
    assert Sampler(SamplingConfig(temperature=0), [0]).choose(torch.tensor([[1.0, 3.0, 2.0]]), [[]], [0]) == [1]


def test_rows_that_pad_the_vocabulary_are_never_chosen():
    logits = torch.zeros(1, 50304)
    logits[0, 50257:] = 100.0
    logits[0, 11] = 1.0
    assert Sampler(SamplingConfig(temperature=0), [0]).choose(logits, [[]], [0]) == [11]


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_say_at_which_token(temperature, value):
    logits = torch.zeros(2, 100)
    logits[1, 63] = value
    with pytest.raises(DivergedError, match="not finite at token 3: try --precision fp32"):
        Sampler(SamplingConfig(temperature=temperature), [0, 1]).choose(logits, [[1], [1, 2, 3]], [0, 1])


@pytest.mark.parametrize("temperature", [1e-300, 5e-324, 1e300])
def test_extreme_temperatures_are_numbers_like_any_other(temperature):
    probabilities, ids = distribution(torch.tensor([[1.0, 3.0, 2.0]]), SamplingConfig(temperature=temperature))
    assert ids.tolist() == [[1, 2, 0]]
    expected = [1 / 3, 1 / 3, 1 / 3] if temperature > 1 else [1.0, 0.0, 0.0]
    assert probabilities[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": math.nan},
        {"temperature": -0.1},
        {"temperature": math.inf},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"top_p": math.nan},
        {"top_k": -1},
        {"min_p": -0.1},
        {"min_p": math.nan},
        {"max_new_tokens": -1},
        {"repetition_penalty": 0.0},
        {"seed": -1},
        {"seed": 2**63},
        {"stop": ("a", "")},
        {"num_samples": 0},
        {"num_samples": 100_001},
        {"stop": "END"},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=f"^{next(iter(wrong))} must be"):
        SamplingConfig(**wrong)


@pytest.mark.parametrize("k", [1, 2, 40, 700, 5000])
@pytest.mark.parametrize("width", [50257, 331, 5003])
def test_the_largest_are_those_of_topk(k, width):
    logits = torch.randperm(3 * width, generator=torch.Generator().manual_seed(1)).float().view(3, width)
    k = min(k, width)
    values, ids = largest(logits, k)
    theirs = logits.topk(k)
    assert torch.equal(values, theirs.values)
    assert torch.equal(ids, theirs.indices)
