"""The engine: a text is the same alone and among others, whatever else happens in the other slots."""

import copy
import gc
import os
import random
import signal
import threading
import time
import weakref
from dataclasses import replace

import pytest

from gpt2cli.errors import GPT2Error
from gpt2cli.inference.gpu.graph_decoder import GraphDecoder
from gpt2cli.inference.torch_decoder import TorchDecoder
from gpt2cli.serving.batch import Batch
from gpt2cli.serving.engine import EndingError, Engine, Load, QueueFullError
from gpt2cli.serving.text_request import NewText, PromptRead, TextEnd
from tests import models
from tests.serving.engine_requests import CONFIG, random_request, text_of, with_few_choices
from tests.serving.engine_runs import LIMIT, Answer, expected, running, submit


def serve_all(decoder, requests, slots):
    """The answers to requests of which each arrives in the turn of some event of the earlier ones."""
    engine, rng = Engine(decoder, slots, len(requests)), random.Random(1)
    answers = [Answer(texts) for texts in requests]
    left = list(reversed(answers))

    def arrive():
        if left:
            answer = left.pop()
            engine.submit(answer.texts, lambda event: deliver(answer, event))

    def deliver(answer, event):
        answer.deliver(event)
        if rng.random() < 0.1 or isinstance(event, TextEnd):
            arrive()

    for _ in range(2 * slots):
        arrive()
    with running(engine):
        for answer in answers:
            answer.wait()
        assert engine.load() == Load(0, slots, 0)
    return answers


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_each_text_is_what_it_is_alone(precision):
    """Its tokens, the reason for its end, and all log-probabilities, to the bit."""
    decoder, rng = models.packed(models.small_model(CONFIG), precision), random.Random(precision)
    requests = [random_request(rng) for _ in range(20)]
    for answer in serve_all(decoder, requests, slots=4):
        for found, text in zip(answer.found(), answer.texts, strict=True):
            assert found == expected(decoder, text), text


@pytest.mark.parametrize("kind", ["torch", "graphs"])
def test_decoders_of_pytorch_give_the_same_texts(kind):
    """From few tokens: a last bit that differs must not change which one a random number chooses."""
    model, rng = models.small_model(CONFIG), random.Random(2)
    plain = TorchDecoder(copy.deepcopy(model))
    decoder = plain if kind == "torch" else GraphDecoder(model, fused=False)
    requests = [[with_few_choices(text) for text in random_request(rng)] for _ in range(15)]
    for answer in serve_all(decoder, requests, slots=4):
        for found, text in zip(answer.found(), answer.texts, strict=True):
            alone = expected(plain, text)
            assert found[:3] == alone[:3], text
            for one, other in zip(found[3] + found[4], alone[3] + alone[4], strict=True):
                assert one.id == other.id and one.logprob == pytest.approx(other.logprob, abs=1e-4)


@pytest.fixture(scope="module")
def decoder():
    return models.packed(models.small_model(CONFIG), "fp32")


class Gate:
    """Holds the engine's thread at the first event of a kind, until it is opened."""

    def __init__(self, engine, kind, *texts):
        self.answer = Answer(texts)
        self._kind, self._reached, self._opened = kind, threading.Event(), threading.Event()
        self.answer.job = engine.submit(texts, self._deliver)
        assert self._reached.wait(LIMIT)

    def _deliver(self, event):
        self.answer.deliver(event)
        if isinstance(event, self._kind):
            self._reached.set()
            assert self._opened.wait(LIMIT)

    def open(self):
        self._opened.set()
        return self.answer


def test_a_full_queue_says_when_to_come_again(decoder):
    engine = Engine(decoder, 1, 1)
    with running(engine):
        gate = Gate(engine, NewText, text_of(1, 30))
        second = submit(engine, text_of(1, 2))
        assert engine.load() == Load(1, 1, 1)
        with pytest.raises(QueueFullError) as raised:
            submit(engine, text_of(1, 2))
        assert 1 <= raised.value.retry_after < 60
        gate.open().wait()
        second.wait()
        assert submit(engine, text_of(1, 2)).wait().found()


def test_without_a_queue_only_free_slots_take_requests(decoder):
    engine = Engine(decoder, 2, 0)
    with running(engine):
        gate = Gate(engine, NewText, text_of(1, 30))
        submit(engine, text_of(1, 2))
        with pytest.raises(QueueFullError):
            submit(engine, text_of(1, 2))
        gate.open().wait()


@pytest.mark.parametrize("kind", [PromptRead, NewText])
def test_a_cancelled_request_has_no_more_events_and_leaves_its_slot(decoder, kind):
    engine = Engine(decoder, 1, 9)
    with running(engine):
        gate = Gate(engine, kind, text_of(3, 80), text_of(3, 80, 1))
        waiting, third = submit(engine, text_of(5, 80)), submit(engine, text_of(2, 4))
        engine.cancel(gate.answer.job)
        engine.cancel(waiting.job)
        events = list(gate.open().events)
        third.wait()
        engine.cancel(third.job)
        assert (gate.answer.events, waiting.events) == (events, [])
        assert third.found() == [expected(decoder, third.texts[0])]


def test_a_request_can_be_cancelled_before_it_is_seen(decoder):
    engine = Engine(decoder, 1, 9)
    gone, other = submit(engine, text_of(3)), submit(engine, text_of(4))
    engine.cancel(gone.job)
    assert engine.load().waiting_requests == 2
    with running(engine):
        other.wait()
    assert not gone.events and engine.load() == Load(0, 1, 0)


def test_an_end_without_grace_cuts_all_requests(decoder):
    engine = Engine(decoder, 1, 9)
    with running(engine):
        gate = Gate(engine, NewText, text_of(3, 80), text_of(3, 80, 1))
        waiting = submit(engine, text_of(5))
        engine.end(0)
        with pytest.raises(EndingError):
            submit(engine, text_of(5))
        for answer in (gate.open().wait(), waiting.wait()):
            assert "has ended" in str(answer.error.error)
            assert answer.events[-1] is answer.error


def test_an_end_with_time_finishes_what_was_accepted(decoder):
    engine = Engine(decoder, 1, 9)
    with running(engine, grace=LIMIT):
        gate = Gate(engine, NewText, text_of(3, 20), text_of(3, 8, 1))
        waiting = submit(engine, text_of(5))
        engine.end(LIMIT)
        with pytest.raises(EndingError):
            submit(engine, text_of(5))
        for answer in (gate.open(), waiting):
            assert answer.wait().found() == [expected(decoder, text) for text in answer.texts]


def test_a_second_end_only_shortens_the_time(decoder):
    engine = Engine(decoder, 1, 9)
    with running(engine):
        gate = Gate(engine, NewText, text_of(3, 10_000))
        engine.end(LIMIT)
        engine.end(0)
        engine.end(LIMIT)
        assert gate.open().wait().error


def test_a_signal_ends_an_engine_that_sleeps(decoder):
    """The handler runs in the thread that waits for requests."""
    engine = Engine(decoder, 1, 9)
    before = signal.signal(signal.SIGINT, lambda *_: engine.end(0))
    try:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        engine.run()
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(EndingError):
        submit(engine, text_of(5))


def test_a_signal_cuts_the_requests_of_an_engine_that_works(decoder):
    engine = Engine(decoder, 1, 9)
    answer = Answer([text_of(3, 10_000)])
    before = signal.signal(signal.SIGINT, lambda *_: engine.end(0))
    try:
        engine.submit(answer.texts, lambda event: (answer.deliver(event), os.kill(os.getpid(), signal.SIGINT)))
        engine.run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert answer.error


def test_an_engine_without_requests_makes_no_turns(decoder, monkeypatch):
    turns = []
    turn = Batch.turn
    monkeypatch.setattr(Batch, "turn", lambda batch: (turns.append(1), turn(batch)))
    engine = Engine(decoder, 1, 9)
    with running(engine):
        submit(engine, text_of(3, 4)).wait()
        submit(engine, text_of(3, 1)).wait()
        count = len(turns)
        time.sleep(0.05)
        assert len(turns) == count <= 5 + 1 + 1


def test_a_bug_fails_all_requests(decoder):
    broken = copy.copy(decoder)
    engine = Engine(broken, 1, 9)
    answers = []
    with pytest.raises(ZeroDivisionError), running(engine):
        gate = Gate(engine, NewText, text_of(3, 80))
        answers = [gate.answer, submit(engine, text_of(3)), submit(engine, text_of(4))]
        broken.hidden = lambda *_: 1 / 0
        gate.open()
        for answer in answers:
            assert type(answer.wait().error.error) is GPT2Error
    with pytest.raises(EndingError):
        submit(engine, text_of(5))


def test_nothing_of_a_request_outlives_it(decoder):
    """Complete, cancelled or failed: only the thread that asked holds it."""
    engine = Engine(decoder, 3, 9)
    with running(engine):
        answers = [submit(engine, text_of(30, 3, 5), text_of(30, 4, 5), text_of(30, 5, 5)).wait()]
        gate = Gate(engine, NewText, text_of(3, 80))
        engine.cancel(gate.answer.job)
        answers.append(gate.open())
        answers.append(submit(engine, text_of(3), replace(text_of(4), ids=(CONFIG.vocab_size,))).wait())
        while engine.load() != Load(0, 3, 0):
            time.sleep(0.001)
        submit(engine, text_of(1, 1)).wait()
        held = [weakref.ref(kept) for answer in answers for kept in (answer, answer.job, *answer.texts)]
        del answers, gate
        gc.collect()
        assert not [found for ref in held if (found := ref()) is not None]
