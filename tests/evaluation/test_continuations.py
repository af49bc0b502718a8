"""The likelihoods of continuations, against the logits of the model in double precision."""

import random

import pytest
import torch

from gpt2cli.data.batches import make_rows, rows_of_groups
from gpt2cli.data.dataset import from_sequences
from gpt2cli.errors import CheckpointError, DataError, DivergedError
from gpt2cli.evaluation.continuations import Likelihood, Pair, score_pairs
from gpt2cli.evaluation.likelihood import RecordSource, score
from gpt2cli.inference.decoder import Decoder
from gpt2cli.inference.torch_decoder import TorchDecoder
from tests.models import SMALL, packed, small_model

WINDOW = SMALL.block_size


@pytest.fixture(scope="module", params=["loops", "torch"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    model = small_model()
    return packed(model, "fp32") if request.param == "loops" else TorchDecoder(model)


def tokens(count: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(SMALL.vocab_size), k=count)


def expected(pair: Pair) -> Likelihood:
    """Cut as by lm-eval's model `hf`: the last `window + 1` tokens, of which the last is not read."""
    ids = [*pair.context, *pair.continuation][-(WINDOW + 1) :]
    with torch.no_grad():
        logits = small_model().double()(torch.tensor([ids[:-1]]))[0, -len(pair.continuation) :]
    wanted = torch.tensor(pair.continuation)
    logprobs = logits.log_softmax(-1).gather(1, wanted[:, None])
    return Likelihood(float(logprobs.sum()), bool((logits.argmax(-1) == wanted).all()))


def likeliest(context: list[int], count: int) -> list[int]:
    """The continuation that greedy decoding gives."""
    found: list[int] = []
    with torch.no_grad():
        for _ in range(count):
            found.append(int(small_model().double()(torch.tensor([context + found]))[0, -1].argmax()))
    return found


def check(decoder: Decoder, pairs: list[Pair]) -> None:
    found = dict(score_pairs(decoder, pairs))
    assert sorted(found) == list(range(len(pairs)))
    for i, pair in enumerate(pairs):
        assert found[i].logprob == pytest.approx(expected(pair).logprob, abs=1e-4)
        assert found[i].is_greedy == expected(pair).is_greedy


def test_choices_of_one_context(decoder: Decoder) -> None:
    context = tokens(20, 1)
    choices = [tokens(n, n) for n in (1, 1, 3, 7)]
    check(decoder, [Pair(context, choice) for choice in choices] + [Pair(tokens(5, 2), choices[2])])


def test_greedy_continuations_are_recognized(decoder: Decoder) -> None:
    context = tokens(20, 3)
    greedy = likeliest(context, 4)
    almost = [*greedy[:3], (greedy[3] + 1) % SMALL.vocab_size]
    check(decoder, [Pair(context, greedy), Pair(context, greedy[:1]), Pair(context, almost)])


@pytest.mark.parametrize("before", [1, WINDOW - 1, WINDOW, WINDOW + 1, 100])
@pytest.mark.parametrize("n", [1, 2, WINDOW])
def test_long_contexts_are_cut_from_the_left(decoder: Decoder, before: int, n: int) -> None:
    check(decoder, [Pair(tokens(before, 4), tokens(n, 5)), Pair(tokens(before, 4), tokens(n, 6))])


def test_many_pairs_of_all_lengths(decoder: Decoder) -> None:
    lengths = random.Random(7)
    contexts = [tokens(lengths.randint(1, 45), seed) for seed in range(20)]
    check(decoder, [Pair(context, tokens(lengths.randint(1, 9), i)) for i in range(3) for context in contexts])


def test_the_numbers_are_those_of_an_evaluation(decoder: Decoder) -> None:
    contexts, continuations = [tokens(18, 8)] * 3, [tokens(n, n) for n in (2, 4, 6)]
    pairs = [Pair(*pair) for pair in zip(contexts, continuations, strict=True)]
    texts = [torch.tensor([*pair.context, *pair.continuation]).to(torch.uint16) for pair in pairs]
    source = RecordSource(from_sequences(texts, [18] * 3), range(3), 3)
    losses = score(decoder, source, range(3), 1024).losses
    found = dict(score_pairs(decoder, pairs))
    assert [-found[i].logprob for i in range(3)] == pytest.approx(losses, abs=1e-5)


def test_no_pairs(decoder: Decoder) -> None:
    assert list(score_pairs(decoder, [])) == []


@pytest.mark.parametrize("n", [0, WINDOW + 1])
def test_a_continuation_that_cannot_be_predicted_is_refused(decoder: Decoder, n: int) -> None:
    with pytest.raises(DataError, match=f"has {n} tokens"):
        list(score_pairs(decoder, [Pair([1], tokens(n, 0))]))


def test_a_foreign_token_is_refused(decoder: Decoder) -> None:
    with pytest.raises(CheckpointError, match="token 50257"):
        list(score_pairs(decoder, [Pair([50257], [1])]))


def test_likelihoods_that_are_not_finite_are_an_error() -> None:
    model = small_model()
    with torch.no_grad():
        model.ln_f.weight.fill_(float("inf"))
    with pytest.raises(DivergedError):
        list(score_pairs(TorchDecoder(model), [Pair([1], [2])]))


def test_a_row_holds_the_context_of_a_group_once() -> None:
    ids = [torch.tensor([*tokens(30, 1), *tokens(n, n)]).to(torch.uint16) for n in (1, 2, 3)]
    data = from_sequences(ids, [30] * 3)
    [row] = rows_of_groups(data, [range(3)], 1024, torch.device("cpu"))
    assert row.idx.shape == (1, 29 + 1 + 2 + 3)
    other = from_sequences([torch.tensor([1, *text.tolist()]).to(torch.uint16) for text in ids], [31] * 3)
    [same] = make_rows(other, range(3), 1024, torch.device("cpu"))
    assert same.idx.shape == (1, 30 + 1 + 2 + 3)
