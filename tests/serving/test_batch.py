"""What happens in the turns of a batch: which text gets a slot, whose prompt is read, and what becomes of the rest."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from gpt2cli.config import SamplingConfig
from gpt2cli.errors import CheckpointError, DivergedError
from gpt2cli.serving.batch import Batch
from gpt2cli.serving.jobs import Job
from gpt2cli.serving.text_request import NewText, PromptRead, TextEnd, TextRequest
from tests import models
from tests.serving.engine_requests import CONFIG, WINDOW, text_of, with_seed
from tests.serving.engine_runs import Answer, expected


@pytest.fixture(scope="module")
def decoder():
    return models.packed(models.small_model(CONFIG), "fp32")


@pytest.fixture
def small_pieces(monkeypatch):
    """Four tokens of a prompt are read in a turn."""
    monkeypatch.setattr("gpt2cli.serving.slots.CPU_PIECE", 4)


class Passes:
    """A decoder that lists the passes over its rows: (rows, tokens of a piece), or (rows, None) for a step."""

    def __init__(self, decoder):
        self.seen = []
        self.decoder, self._hidden = copy.copy(decoder), decoder.hidden
        self.decoder.hidden = self._watched

    def _watched(self, idx, sight, whole=None):
        self.seen.append((list(sight.rows), whole and idx.shape[1]))
        return self._hidden(idx, sight, whole)

    @property
    def tokens_read(self):
        return sum(tokens or 0 for _, tokens in self.seen)


def add(batch, *texts):
    answer = Answer(texts)
    answer.job = Job(texts, answer.deliver)
    batch.add(answer.job)
    return answer


def finish(batch):
    for _ in range(10_000):
        if batch.is_idle:
            assert (batch.busy, batch.waiting) == (0, 0)
            return
        batch.turn()
    raise AssertionError("the batch does not end")


@pytest.mark.parametrize("slots", [1, 2, 4, 9])
@pytest.mark.parametrize("length", [20, 70, WINDOW])
def test_a_prompt_is_read_once_for_all_its_texts(decoder, slots, length):
    passes = Passes(decoder)
    batch = Batch(passes.decoder, slots)
    texts = [with_seed(text_of(length, 1, prompt_logprobs=1), seed) for seed in range(6)]
    answer = add(batch, *texts)
    finish(batch)
    assert passes.tokens_read == length
    assert answer.found() == [expected(decoder, text) for text in texts]


def test_a_prompt_that_has_lost_its_slot_is_read_again(decoder):
    """Another request takes the only slot between two texts of the first."""
    batch = Batch(decoder, 1)
    texts = [with_seed(text_of(40, 3, prompt_logprobs=0), seed) for seed in range(3)]
    answers = add(batch, *texts), add(batch, text_of(7, 3, 9), text_of(50, 3, 8))
    finish(batch)
    for answer in answers:
        assert answer.found() == [expected(decoder, text) for text in answer.texts]


def test_a_prompt_that_another_text_needs_keeps_its_slot(decoder):
    """Both slots are free when the other request takes one, and both hold a prompt."""
    passes = Passes(decoder)
    batch = Batch(passes.decoder, 2)
    add(batch, text_of(40, 2), text_of(40, 1), text_of(40, 1))
    add(batch, text_of(7, 1, 8), text_of(9, 1, 9))
    finish(batch)
    assert passes.tokens_read == 40 + 7 + 9


def test_a_slot_is_free_before_the_client_knows_that_its_text_has_ended(decoder):
    batch, seen = Batch(decoder, 1), []
    batch.add(Job([text_of(4, 3)], lambda event: seen.append((type(event), batch.busy))))
    finish(batch)
    assert seen[0] == (PromptRead, 1) and seen[-1] == (TextEnd, 0)


@pytest.mark.parametrize("window", [1, 2, 3, 4, 5])
def test_texts_outgrow_the_smallest_windows(window):
    """Of up to 3 tokens, nothing is left to read again."""
    small = models.packed(models.small_model(replace(CONFIG, block_size=window)), "fp32")
    batch = Batch(small, 2)
    answer = add(batch, *(text_of(length, 12, seed) for seed in range(2) for length in range(1, window + 1)))
    finish(batch)
    assert answer.found() == [expected(small, text) for text in answer.texts]


def test_requests_take_turns_for_slots(decoder):
    batch = Batch(decoder, 2)
    many = add(batch, *(text_of(5, 3, seed) for seed in range(30)))
    batch.turn()
    one, two = add(batch, text_of(5, 3, 50)), add(batch, text_of(5, 3, 51))
    assert (batch.busy, batch.waiting) == (2, 2)
    while not two.of(TextEnd):
        batch.turn()
    assert one.of(TextEnd) and len(many.of(TextEnd)) <= 5
    finish(batch)


def test_a_short_prompt_does_not_wait_for_a_long_one(decoder, small_pieces):
    batch = Batch(decoder, 2)
    long = add(batch, text_of(80))
    batch.turn()
    short = add(batch, text_of(4, seed=1))
    batch.turn()
    assert short.of(PromptRead) and not long.of(PromptRead)
    finish(batch)


def test_a_long_prompt_is_read_although_short_ones_keep_coming(decoder, small_pieces):
    batch, turns = Batch(decoder, 3), 0
    long = add(batch, text_of(80, seed=1))
    while not long.of(PromptRead):
        add(batch, text_of(4, 1, turns))
        batch.turn()
        turns += 1
    assert turns <= 2 * 80 / 4
    finish(batch)


def test_texts_grow_while_a_long_prompt_is_read(decoder, small_pieces):
    batch = Batch(decoder, 2)
    first = add(batch, text_of(1, 30, logprobs=0))
    batch.turn()
    long = add(batch, text_of(80, seed=1))
    while not long.of(PromptRead):
        before = sum(len(event.logprobs) for event in first.of(NewText))
        batch.turn()
        batch.turn()  # a token that is not a whole character comes with the next one
        assert sum(len(event.logprobs) for event in first.of(NewText)) > before
    finish(batch)


def test_a_request_that_is_removed_leaves_before_the_next_step(decoder, small_pieces):
    passes = Passes(decoder)
    batch = Batch(passes.decoder, 4)
    gone = add(batch, text_of(4, 80), text_of(40, 80, 1), *(with_seed(text_of(70, 80, 2), seed) for seed in range(5)))
    other = add(batch, text_of(4, 20, 3))
    for _ in range(5):
        batch.turn()
    events = list(gone.events)
    batch.remove(gone.job)
    batch.remove(gone.job)
    assert (batch.busy, batch.waiting) == (1, 0)
    del passes.seen[:]
    finish(batch)
    assert gone.events == events
    assert all(len(rows) == 1 for rows, _ in passes.seen)
    assert other.found() == [expected(decoder, text) for text in other.texts]
    batch.remove(other.job)


def test_a_token_that_the_model_does_not_know_ends_its_request(decoder):
    batch = Batch(decoder, 2)
    wrong = add(batch, text_of(4), replace(text_of(4), ids=(1, CONFIG.vocab_size)), text_of(5))
    right = add(batch, text_of(4))
    finish(batch)
    assert isinstance(wrong.error.error, CheckpointError)
    assert right.found() == [expected(decoder, text) for text in right.texts]


BAD = 1000
"""A token whose embedding is not finite, in `spoiled`."""


@pytest.fixture(scope="module", params=["compiled", "torch", "graphs"])
def spoiled(request):
    from gpt2cli.inference.gpu.graph_decoder import GraphDecoder
    from gpt2cli.inference.torch_decoder import TorchDecoder

    model = models.small_model(replace(CONFIG, tied=False))
    model.wte.weight.data[BAD] = np.nan
    if request.param == "compiled":
        return models.packed(model, "fp32")
    return TorchDecoder(model) if request.param == "torch" else GraphDecoder(model, fused=False)


def test_a_text_that_diverges_ends_alone_and_leaves_clean_slots(spoiled):
    """In its prompt, in a piece before the last one, in the log-probabilities alone, or when it has generated BAD."""
    greedy = SamplingConfig(max_new_tokens=20, temperature=0)
    good = [TextRequest(text_of(length, seed=length).ids, greedy) for length in (3, 45, 80, 60, 7)]
    bad = [
        TextRequest((1, 2, BAD), greedy),
        TextRequest((BAD, *text_of(70).ids), greedy),
        TextRequest((BAD, *text_of(70).ids), SamplingConfig(max_new_tokens=0), prompt_logprobs=0),
        TextRequest((1, 2), greedy, logit_bias={BAD: 100.0}),
    ]
    batch = Batch(spoiled, 3)
    answers = [add(batch, text) for pair in zip(good, [*bad, good[0]], strict=True) for text in pair]
    finish(batch)
    again = add(batch, *good)  # in the slots that the others have left
    finish(batch)
    for answer in answers:
        if answer.texts[0] in bad:
            assert isinstance(answer.error.error, DivergedError)
            assert not answer.of(TextEnd)
        else:
            assert answer.found() == [again.found()[good.index(answer.texts[0])]]
    alone = Batch(spoiled, 1)
    for text, found in zip(good, again.found(), strict=True):
        answer = add(alone, text)
        finish(alone)
        assert answer.found() == [found]


def test_a_text_that_diverges_ends_the_other_texts_of_its_request(spoiled):
    greedy = SamplingConfig(max_new_tokens=20, temperature=0)
    bad = TextRequest((1, 2), greedy, logit_bias={BAD: 100.0})
    batch = Batch(spoiled, 3)
    answer = add(batch, bad, TextRequest((3,), greedy), replace(bad, logit_bias={}), TextRequest((4,), greedy))
    finish(batch)
    assert answer.of(NewText) and answer.events[-1] is answer.error


def test_a_slot_is_expected_when_the_first_text_may_end(decoder):
    batch = Batch(decoder, 2)
    assert batch.free_in() == 0
    add(batch, text_of(4, 50), text_of(4, 80))
    for _ in range(3):
        batch.turn()
    seconds = batch._turn_seconds
    assert seconds > 0
    assert 40 * seconds < batch.free_in() < 60 * seconds
    add(batch, *(text_of(4, 5, seed) for seed in range(3)))
    assert 40 * seconds < batch.free_in() < 60 * seconds
    finish(batch)
