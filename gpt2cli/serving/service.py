"""The state that the HTTP server and the command share."""

from collections.abc import Callable
from dataclasses import dataclass, field

from gpt2cli.config import ServeConfig
from gpt2cli.serving.engine import Engine
from gpt2cli.serving.metrics import Metrics
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.served_model import ServedModel


@dataclass(frozen=True)
class RequestRecord:
    """One answered request, for the log and the metrics. It holds no text of a prompt or an answer.

    method, path      the route, such as /v1/models/{id}, and not what a client wrote; "other" if there is none
    status            the HTTP status; 499 if the client left before the answer was complete
    seconds           from the end of the request's head to the last byte of the answer
    first_text        seconds from the same moment to the first new text, if there was one
    prompt_tokens, new_tokens   None for requests that generate nothing
    hint              what was wrong with a request that is not HTTP
    bug               where an exception was raised that nothing expects, such as "KeyError at answers.py:12"
    """

    method: str
    path: str
    status: int
    seconds: float
    first_text: float | None = None
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    hint: str | None = None
    bug: str | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """New tokens per second after the first text; None if there were fewer than two tokens."""
        if self.first_text is None or not self.new_tokens or self.new_tokens < 2 or self.seconds <= self.first_text:
            return None
        return (self.new_tokens - 1) / (self.seconds - self.first_text)


Report = Callable[[RequestRecord], None]


@dataclass
class Service:
    """The HTTP server reads it in its own thread. The command writes it: `engine` and `model` when they are loaded.

    report     gets each answered request, in the thread of the HTTP server
    metrics    what /metrics tells: `report` must count the requests
    is_ending  whether the server has been asked to end, and takes no more requests
    is_broken  whether `give_up` was called
    """

    config: ServeConfig
    report: Report
    engine: Engine | None = field(default=None, init=False)
    model: ServedModel | None = field(default=None, init=False)
    metrics: Metrics = field(default_factory=Metrics, init=False)
    is_ending: bool = field(default=False, init=False)
    is_broken: bool = field(default=False, init=False)

    def begin(self, model: ServedModel, engine: Engine) -> None:
        """Answer requests from now on. After `give_up`, the engine ends at once."""
        self.model, self.engine = model, engine
        if self.is_broken:
            engine.end(0)

    def give_up(self) -> None:
        """End the engine, as soon as there is one, because the server cannot go on. Any thread can call this."""
        self.is_broken = True
        if self.engine is not None:
            self.engine.end(0)

    def loaded(self) -> tuple[ServedModel, Engine]:
        """The model and the engine. Raises RefusedError (503) while the model is loaded."""
        if self.model is None or self.engine is None:
            raise RefusedError(503, "the model is still loading: try again in a moment", headers={"Retry-After": "1"})
        return self.model, self.engine
