"""Generates the texts of many requests together, over one decoder: continuous batching.

One thread runs the engine. Requests come from other threads.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock

from gpt2cli.errors import GPT2Error
from gpt2cli.inference.decoder import Decoder
from gpt2cli.serving.batch import Batch
from gpt2cli.serving.jobs import Deliver, Job
from gpt2cli.serving.text_request import TextRequest

IDLE_SECONDS = 1.0
"""The longest sleep of an engine that has nothing to do."""


class QueueFullError(Exception):
    """As many requests wait as may wait. `retry_after` is an estimate of the seconds until there is room."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


class EndingError(Exception):
    """The server ends, and takes no more requests."""


@dataclass(frozen=True)
class Load:
    """What the engine does at the moment."""

    busy_slots: int
    slots: int
    waiting_requests: int


class Engine:
    """`slots` texts are generated at a time. Up to `max_queue` requests wait for a slot.

    The memory of keys and values for all slots is taken here: `kv_bytes`.
    """

    def __init__(self, decoder: Decoder, slots: int, max_queue: int) -> None:
        self.slots, self._max_queue = slots, max_queue
        self._batch = Batch(decoder, slots)
        self.kv_bytes = self._batch.nbytes
        # what `run` does before its next turn; reentrant, so that a signal handler can put something in
        self._inbox = SimpleQueue[Callable[[], None]]()
        self._accepted = self._added = 0  # requests that were put into the inbox, and that came out
        self._is_closed = False
        self._deadline: float | None = None
        self._submitting = Lock()  # `end` does not take it, because a signal may come while it is held

    def submit(self, texts: Sequence[TextRequest], deliver: Deliver) -> Job:
        """Accept a request, in any thread. Raises QueueFullError and EndingError."""
        with self._submitting:
            if self._is_closed or self._deadline is not None:
                raise EndingError
            load = self.load()
            if load.waiting_requests >= self._max_queue + load.slots - load.busy_slots:
                raise QueueFullError(max(1, math.ceil(self._batch.free_in())))
            job = Job(texts, deliver)
            self._accepted += 1
            self._inbox.put(partial(self._add, job))
        return job

    def cancel(self, job: Job) -> None:
        """Stop a request whose client has left, in any thread. Its slots are free before the next step."""
        job.is_cancelled = True
        self._inbox.put(partial(self._batch.remove, job))

    def load(self) -> Load:
        """What the engine does at the moment, in any thread."""
        return Load(self._batch.busy, self.slots, self._batch.waiting + self._accepted - self._added)

    def run(self) -> None:
        """Generate texts until `end`."""
        error = GPT2Error("the server has ended before the answer was complete")
        try:
            while True:
                self._empty_inbox(wait=self._batch.is_idle and self._deadline is None)
                if self._is_over():
                    return
                if not self._batch.is_idle:
                    self._batch.turn()
        except Exception:
            error = GPT2Error("the server has failed: this is a bug")
            raise
        finally:
            self._close(error)

    def end(self, grace: float) -> None:
        """Let `run` return when all accepted requests are done, or after `grace` seconds; from a thread or a signal.

        A second call can only shorten the time. Requests that are cut get RequestFailed.
        """
        deadline = time.monotonic() + grace
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        self._inbox.put(lambda: None)  # wakes `run`

    def _is_over(self) -> bool:
        return self._deadline is not None and (self._batch.is_idle or time.monotonic() >= self._deadline)

    def _empty_inbox(self, wait: bool) -> None:
        """Add the new requests to the batch and remove the cancelled ones. With `wait`, sleep until something comes.

        A signal that arrives just before the sleep does not end it: Python runs the handler after IDLE_SECONDS.
        """
        with suppress(Empty):
            while True:
                self._inbox.get(block=wait, timeout=IDLE_SECONDS)()
                wait = False

    def _add(self, job: Job) -> None:
        self._added += 1
        if not job.is_cancelled:
            self._batch.add(job)

    def _close(self, error: GPT2Error) -> None:
        """End all requests that are left. There will be no others."""
        with self._submitting:
            self._is_closed = True
        self._empty_inbox(wait=False)
        for job in self._batch.jobs:
            with suppress(Exception):  # the others must get their event, too
                self._batch.fail(job, error)
