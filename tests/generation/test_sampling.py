"""The sampler: equal to transformers' filters, and true to its distribution."""

import math
from dataclasses import replace

import numpy as np
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
from gpt2cli.generation.sampling import Sampler, cut, draw
from gpt2cli.inference.candidates import candidates, penalise_repetition
from gpt2cli.inference.gpu import torch_sampling

configs = st.builds(
    SamplingConfig,
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, 60),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.5, 2),
)


def distribution(logits, config, **penalty):
    """The probabilities of the tokens that may come next, most likely first, and their ids."""
    values, ids = candidates(logits, config.top_k or logits.shape[1], **penalty)
    return cut(values, config), ids


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
    # the penalty's results are in fp32, as ours are
    theirs = warpers(context, warpers.pop(0)(context, logits).double()).softmax(-1)
    seen = [np.unique(row) for row in context.numpy()]
    probabilities, ids = distribution(logits.numpy(), config, seen=seen, penalty=config.repetition_penalty)
    ours = np.zeros((2, 50))
    for row in range(2):
        kept = probabilities[row] > 0
        ours[row, ids[row, kept]] = probabilities[row, kept]
    np.testing.assert_allclose(ours, theirs, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_all_that_tie_with_the_kth_are_kept_in_the_order_of_their_ids(k):
    logits = np.full((2, 50257), -9, np.float32)
    logits[0, [7, 40_000, 3, 90]] = [3.0, 1.0, 1.0, 1.0]
    logits[1, :3] = [3.0, 2.0, 1.0]
    probabilities, ids = distribution(logits, SamplingConfig(temperature=1, top_k=k))
    kept = [ids[row][probabilities[row] > 0].tolist() for row in (0, 1)]
    assert kept == [[7] if k == 1 else [7, 3, 90, 40_000], [0, 1, 2][:k]]


def tied_logits():
    """(3, 331) with many equal logits, beside a row without."""
    logits = (np.random.default_rng(2).standard_normal((3, 331), np.float32) * 6).round() / 2
    logits[1] = np.arange(331)
    return logits


@pytest.mark.parametrize("top_k", [0, 1, 5, 40])
def test_a_row_with_ties_and_a_device_that_cannot_wait_choose_the_same(top_k):
    """Every choice along the distribution, beside rows with more ties and fewer."""
    logits, config = tied_logits(), SamplingConfig(temperature=1.5, top_k=top_k)
    probabilities, ids = distribution(logits, config)
    for row, together in enumerate(probabilities):
        alone, _ = distribution(logits[row : row + 1], config)
        assert np.array_equal(alone[0], together[: alone.shape[1]])
        assert not together[alone.shape[1] :].any()
    for number in np.linspace(0, 1 - 1e-9, 97):
        together = draw(probabilities, ids, np.repeat(number, 3)).tolist()
        uniform = torch.full((3,), number, dtype=torch.float64)
        assert torch_sampling.choose_on_device(torch.from_numpy(logits), uniform, config)[0].tolist() == together
        alone = [draw(*distribution(logits[row : row + 1], config), np.array([number])).item() for row in range(3)]
        assert alone == together


@settings(deadline=None)
@given(configs, st.integers(0, 1000), st.booleans())
def test_a_device_cuts_as_the_host_does(config, seed, tied):
    logits = np.random.default_rng(seed).standard_normal((2, 70), np.float32) * 3
    if tied:
        logits, config = (logits * 2).round() / 2, replace(config, top_p=1.0)  # rounding may cut among equal tokens
    values, ids = candidates(logits, config.top_k or 70)
    theirs, their_ids = torch_sampling.by_id(*torch_sampling.largest(torch.from_numpy(logits), 70))
    expected, probabilities = torch_sampling.cut(theirs, config).numpy(), cut(values, config)
    assert not expected[:, ids.shape[1] :].any()
    np.testing.assert_allclose(probabilities, expected[:, : ids.shape[1]], atol=1e-12, rtol=1e-9)
    kept = probabilities > 0
    assert np.array_equal(ids[kept], their_ids.numpy()[:, : ids.shape[1]][kept])


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("count", [1, 2, 3, 40, 330, 331, 50257])
@pytest.mark.parametrize("tied", [False, True])
def test_a_device_finds_the_candidates_that_the_host_finds(count, penalty, tied):
    logits = tied_logits() if tied else np.random.default_rng(1).standard_normal((3, 50257), np.float32)
    seen = [np.array(tokens) for tokens in ([1, 7], [330], [4, 5, 6])]
    values, ids = candidates(logits, count, seen, penalty)
    their_values, their_ids = torch_sampling.candidates(torch.from_numpy(logits), count, seen, penalty)
    assert np.array_equal(values, their_values)
    kept = values > -math.inf
    assert np.array_equal(ids[kept], their_ids[kept])


@pytest.mark.parametrize("temperature", [0, 0.6, 1])
def test_choose_draws_from_the_distribution(temperature):
    config = SamplingConfig(temperature=temperature, top_k=9, repetition_penalty=1.2)
    ours, theirs = Sampler(config, [1, 2, 3], candidates), Sampler(config, [1, 2, 3], candidates)
    logits, contexts = tied_logits(), [[5, 9], [330], [0]]
    probabilities, ids = ours.distribution(logits, contexts, [0, 1, 2])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    chosen = draw(probabilities, ids, ours.uniform(1)[0]).tolist()
    assert chosen == theirs.choose(logits, contexts, [0, 1, 2])


def test_a_penalty_looks_at_new_tokens_alone_and_counts_each_once():
    class Context(list):
        def __getitem__(self, place):
            looked_at.append(len(range(*place.indices(len(self)))))
            return super().__getitem__(place)

    config, looked_at = SamplingConfig(temperature=0.9, repetition_penalty=1.3, top_k=0), []
    rng = np.random.default_rng(0)
    contexts = [Context([5, 5, 9]), Context([1])]
    sampler = Sampler(config, [1, 2], candidates)
    others = Sampler(SamplingConfig(temperature=0.9, top_k=0), [1, 2], candidates)
    for _ in range(20):
        logits = rng.standard_normal((2, 11), np.float32)
        penalised = penalise_repetition(logits, [np.array(sorted(set(context))) for context in contexts], 1.3)
        expected = others.choose(penalised, contexts, [0, 1])
        assert sampler.choose(logits, contexts, [0, 1]) == expected
        for context, token in zip(contexts, expected, strict=True):
            context.append(token)
    assert looked_at == [3, 1] + [1] * 38


def test_draw_follows_the_distribution():
    probabilities = np.array([[0.5, 0.25, 0.15, 0.1, 0.0]])
    n = 100_000
    uniform = (np.arange(n) + 0.5) / n
    drawn = draw(np.repeat(probabilities, n, axis=0), np.tile(np.arange(5), (n, 1)), uniform)
    np.testing.assert_allclose(np.bincount(drawn, minlength=5) / n, probabilities[0], atol=1e-4, rtol=0)


@settings(deadline=None)
@given(st.lists(st.floats(1e-9, 1), min_size=1, max_size=30), st.floats(0, 1, exclude_max=True))
def test_draw_never_takes_what_is_cut(weights, uniform):
    probabilities = np.array([[*weights, 0.0, 0.0]])
    ids = np.arange(len(weights) + 2)[None]
    [index] = draw(probabilities / probabilities.sum(), ids, np.array([uniform]))
    assert index < len(weights)


def test_choices_of_a_row_do_not_depend_on_its_batch():
    rng = np.random.default_rng(0)
    config = SamplingConfig(temperature=1.5, top_k=0)
    together, alone = Sampler(config, [5, 6, 7], candidates), Sampler(config, [6], candidates)
    for _ in range(20):
        step = rng.standard_normal((3, 100), np.float32)
        assert together.choose(step, [[]] * 3, [0, 1, 2])[1:2] == alone.choose(step[1:2], [[]], [0])


def test_numbers_drawn_at_once_are_those_drawn_one_by_one():
    config, rows = SamplingConfig(temperature=1.0, top_k=0), [0, 1]
    logits = np.zeros((2, 1000), np.float32)
    tokens = [Sampler(config, [3, 4], candidates).choose(logits, [[]] * 2, rows)]
    uniform = Sampler(config, [3, 4], candidates).uniform(5)
    one_by_one = Sampler(config, [3, 4], candidates)
    tokens = [one_by_one.choose(logits, [[]] * 2, rows) for _ in range(5)]
    assert tokens == (uniform * 1000).astype(int).tolist()


def test_temperature_zero_takes_the_largest():
    logits = np.array([[1.0, 3.0, 2.0, 3.0]], np.float32)
    assert Sampler(SamplingConfig(temperature=0), [0], candidates).choose(logits, [[]], [0]) == [1]


def test_rows_that_pad_the_vocabulary_are_never_chosen():
    logits = np.zeros((1, 50304), np.float32)
    logits[0, 50257:] = 100.0
    logits[0, 11] = 1.0
    assert Sampler(SamplingConfig(temperature=0), [0], candidates).choose(logits, [[]], [0]) == [11]


@pytest.mark.parametrize("find", [candidates, torch_sampling.candidates])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_say_at_which_token(temperature, value, find):
    logits = np.zeros((2, 100), np.float32)
    logits[1, 63] = value
    given = logits if find is candidates else torch.from_numpy(logits)
    with pytest.raises(DivergedError, match="not finite at token 3: try --precision fp32"):
        Sampler(SamplingConfig(temperature=temperature), [0, 1], find).choose(given, [[1], [1, 2, 3]], [0, 1])


@pytest.mark.parametrize("temperature", [1e-300, 5e-324, 1e300])
def test_extreme_temperatures_are_numbers_like_any_other(temperature):
    probabilities, ids = distribution(np.array([[1.0, 3.0, 2.0]], np.float32), SamplingConfig(temperature=temperature))
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


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("penalty", [1e-300, 1e-40, 1e-38])
def test_a_penalty_that_makes_logits_infinite_is_an_error_without_a_warning(penalty):
    sampler = Sampler(SamplingConfig(repetition_penalty=penalty), [0], candidates)
    with pytest.raises(DivergedError, match="milder repetition penalty"):
        sampler.choose(np.array([[9.0, 0.0, -9.0]], np.float32), [[0, 1, 2]], [0])


@pytest.mark.parametrize("k", [1, 2, 40, 700, 5000])
@pytest.mark.parametrize("width", [50257, 331, 5003])
def test_the_largest_are_those_of_topk(k, width):
    logits = torch.randperm(3 * width, generator=torch.Generator().manual_seed(1)).float().view(3, width)
    k = min(k, width)
    theirs = logits.topk(k)
    for values, ids in (torch_sampling.largest(logits, k), map(torch.from_numpy, candidates(logits.numpy(), k))):
        assert torch.equal(values, theirs.values)
        assert torch.equal(ids, theirs.indices)


def test_all_logits_are_sorted_with_equal_ones_in_the_order_of_their_ids():
    logits = np.array([[0.0, -1.5, 3e38, -0.0, -math.inf, 2.5, 1e-45, -1.5]], np.float32)
    values, ids = candidates(logits, 8)
    assert ids.tolist() == [[2, 5, 6, 0, 3, 1, 7, 4]]
    assert np.array_equal(values, logits[:, ids[0]])
