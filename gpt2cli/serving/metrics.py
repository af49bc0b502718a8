"""What /metrics tells: counts and times of requests, and the load of the engine. No label has a text from a client."""

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from gpt2cli.serving.engine import Engine

if TYPE_CHECKING:
    from gpt2cli.serving.service import RequestRecord

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
TOKENS_PER_SECOND = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)
"""The upper bounds of the histograms' buckets."""


class Metrics:
    """The numbers of one server. They begin at 0, and nothing else in the process counts in them."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests", "Answered requests by route and HTTP status.", ("route", "status"))
        self._prompt_tokens = self._counter(
            "prompt_tokens", "Tokens of prompts. Several texts of one prompt count once."
        )
        self._new_tokens = self._counter("new_tokens", "Generated tokens.")
        self._seconds = self._histogram(
            "request_seconds", "Seconds from a generation request to its last byte.", SECONDS
        )
        self._first = self._histogram("first_text_seconds", "Seconds from a request to its first new text.", SECONDS)
        self._speed = self._histogram(
            "tokens_per_second",
            "New tokens per second of a request, from its first text to its end.",
            TOKENS_PER_SECOND,
        )
        self._waiting = self._gauge("waiting_requests", "Requests that wait for a slot.")
        self._busy = self._gauge("busy_slots", "Slots that read a prompt or generate a text.")
        self._slots = self._gauge("slots", "Texts that can be generated at a time.")
        self._kv_bytes = self._gauge("kv_bytes", "Bytes of memory for the keys and values of all slots.")
        ProcessCollector(registry=self._registry)  # memory, processor time, open files

    def count(self, record: "RequestRecord") -> None:
        """Count an answered request, in any thread."""
        self._requests.labels(record.path, str(record.status)).inc()
        if record.prompt_tokens is not None:
            self._prompt_tokens.inc(record.prompt_tokens)
            self._seconds.observe(record.seconds)
        self._new_tokens.inc(record.new_tokens or 0)
        if record.first_text is not None:
            self._first.observe(record.first_text)
        if (speed := record.tokens_per_second) is not None:
            self._speed.observe(speed)

    def text(self, engine: Engine | None) -> bytes:
        """All numbers in the text format of Prometheus. `engine` is None while the model is loaded."""
        if engine is not None:
            load = engine.load()
            self._waiting.set(load.waiting_requests)
            self._busy.set(load.busy_slots)
            self._slots.set(load.slots)
            self._kv_bytes.set(engine.kv_bytes)
        return generate_latest(self._registry)

    def _counter(self, name: str, meaning: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"gpt2cli_{name}", meaning, labels, registry=self._registry)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(f"gpt2cli_{name}", meaning, registry=self._registry)

    def _histogram(self, name: str, meaning: str, bounds: tuple[float, ...]) -> Histogram:
        return Histogram(f"gpt2cli_{name}", meaning, registry=self._registry, buckets=bounds)
