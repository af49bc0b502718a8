"""Runs an engine in a thread, and collects the events of its requests."""

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from gpt2cli.generation.logprobs import prompt_logprobs, token_logprobs
from gpt2cli.generation.text import TextGeneration
from gpt2cli.inference.candidates import candidates
from gpt2cli.inference.decoder import Decoder
from gpt2cli.serving.engine import Engine
from gpt2cli.serving.jobs import Job
from gpt2cli.serving.text_request import NewText, PromptRead, RequestFailed, TextEnd, TextEvent, TextRequest
from gpt2cli.tokenizer import END_OF_TEXT_ID

LIMIT = 300
"""Seconds after which a test that waits has failed."""


class Answer:
    """The events of a request. They come in the engine's thread; `wait` is for others."""

    def __init__(self, texts: Sequence[TextRequest]) -> None:
        self.texts = texts
        self.events: list[TextEvent] = []
        self.job: Job | None = None
        self._arrived = threading.Condition()

    def deliver(self, event: TextEvent) -> None:
        with self._arrived:
            self.events.append(event)
            self._arrived.notify_all()

    def wait_for(self, kind: type, count: int = 1) -> None:
        """Wait until there are so many events of a kind."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.of(kind)) >= count, LIMIT)

    def wait(self) -> "Answer":
        """Wait until the request is complete or has failed."""
        with self._arrived:
            done = self._arrived.wait_for(lambda: self.error or len(self.of(TextEnd)) == len(self.texts), LIMIT)
            assert done
        return self

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def error(self) -> RequestFailed | None:
        return next(iter(self.of(RequestFailed)), None)

    def found(self) -> list[tuple]:
        """For each text: what `expected` returns. Checks the order of the events."""
        assert self.error is None, self.error
        return [self._text(index) for index in range(len(self.texts))]

    def _text(self, index: int) -> tuple:
        events = [event for event in self.events if event.index == index]
        assert isinstance(events[0], PromptRead) and isinstance(events[-1], TextEnd)
        new = events[1:-1]
        assert all(isinstance(event, NewText) and (event.text or event.logprobs) for event in new)
        logprobs = [entry for event in new for entry in event.logprobs]
        text = "".join(event.text for event in new)
        return text, events[-1].finish_reason, events[-1].new_tokens, logprobs, list(events[0].logprobs)


@contextmanager
def running(engine: Engine, grace: float = 0) -> Iterator[None]:
    """Run an engine in a thread; end it in the end. Raises what it raises."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            engine.run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        engine.end(grace)
        thread.join(LIMIT)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


def submit(engine: Engine, *texts: TextRequest) -> Answer:
    answer = Answer(texts)
    answer.job = engine.submit(texts, answer.deliver)
    return answer


def expected(decoder: Decoder, request: TextRequest) -> tuple:
    """What `Answer.found` must have for a text: what TextGeneration gives, alone.

    The text, the reason for its end, the number of tokens, the log-probabilities of the text and of the prompt. Those
    of the text also have the end of text, which TextGeneration leaves out.
    """
    alone = copy.copy(decoder)
    generation = TextGeneration(alone, request.ids, request.sampling, request.logprobs)
    [sample] = generation.samples
    chosen, newest = 0, np.empty(0)

    def changed_candidates(logits, count, seen, penalty):
        """OpenAI's formula, before the rest. It is called once for each token, after the one before has been pushed."""
        nonlocal chosen, newest
        chosen += 1
        newest = decoder.to_host(logits)
        logits = np.array(newest)
        for token in set(sample.tokens):
            times = sample.tokens.count(token)
            change = np.float32(times) * np.float32(request.frequency_penalty) + np.float32(request.presence_penalty)
            logits[0, token] -= change
        for token, value in request.logit_bias.items():
            logits[0, token] = -np.inf if value <= -100 else logits[0, token] + np.float32(value)
        return candidates(logits, count, seen, penalty)

    alone.candidates = changed_candidates
    text = "".join(text for _, text in generation)
    reason = "length" if sample.finish_reason in (None, "length") else "stop"
    new, top = sample.logprobs, request.prompt_logprobs
    if sample.finish_reason == "eos" and request.logprobs is not None:
        new = new + token_logprobs(newest, [END_OF_TEXT_ID], request.logprobs)
    return text, reason, chosen, new, [] if top is None else prompt_logprobs(decoder, request.ids, top)
