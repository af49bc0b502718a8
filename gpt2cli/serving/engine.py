"""Generates the texts of many requests together, over one decoder: continuous batching.

One thread runs the engine. Requests come from other threads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gpt2cli.inference.decoder import Decoder
from gpt2cli.serving.text_request import TextEvent, TextRequest

Deliver = Callable[[TextEvent], None]
"""Gets the events of a request, in the thread of the engine. It must return at once."""


class QueueFullError(Exception):
    """As many requests wait as may wait. `retry_after` is an estimate of the seconds until there is room."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


class EndingError(Exception):
    """The server ends, and takes no more requests."""


@dataclass(eq=False)
class Ticket:
    """A request that the engine has accepted.

    is_cancelled  set by `Engine.cancel`
    """

    texts: tuple[TextRequest, ...]
    deliver: Deliver
    is_cancelled: bool = field(default=False, init=False)


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
        self.decoder, self.slots, self.max_queue = decoder, slots, max_queue
        self.kv_bytes = 0

    def submit(self, texts: Sequence[TextRequest], deliver: Deliver) -> Ticket:
        """Accept a request, in any thread. Raises QueueFullError and EndingError."""
        raise NotImplementedError

    def cancel(self, ticket: Ticket) -> None:
        """Stop a request whose client has left, in any thread. Its slots are free before the next step."""
        raise NotImplementedError

    def load(self) -> Load:
        """What the engine does at the moment, in any thread."""
        raise NotImplementedError

    def run(self) -> None:
        """Generate texts until `end`."""
        raise NotImplementedError

    def end(self, grace: float) -> None:
        """Let `run` return when all accepted requests are done, or after `grace` seconds; from a thread or a signal.

        A second call can only shorten the time. Requests that are cut get RequestFailed.
        """
        raise NotImplementedError
