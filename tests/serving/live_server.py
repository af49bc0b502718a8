"""A server in this process with a real engine, on a real socket."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from threading import Thread
from typing import Any

import torch
from openai import OpenAI

from gpt2cli.config import ServeConfig
from gpt2cli.inference.cpu_decoder import CPUDecoder
from gpt2cli.serving.engine import Engine
from gpt2cli.serving.http_server import Server, bind, listening
from gpt2cli.serving.served_model import served_model
from gpt2cli.serving.service import RequestRecord, Service
from tests.models import SMALL, packed, small_model
from tests.runner import wait_until

DIVERGES_AT = 20
"""The place in the window from which on the numbers of `diverging` are not finite."""


@cache
def small() -> CPUDecoder:
    """A model with random weights and the window of SMALL."""
    return packed(small_model(), "fp32")


@cache
def diverging() -> CPUDecoder:
    """A model that fails at texts of more than DIVERGES_AT tokens."""
    model = small_model(replace(SMALL, block_size=64))
    with torch.no_grad():
        model.wpe.weight[DIVERGES_AT:] = torch.inf
    return packed(model, "fp32")


@dataclass
class LiveServer:
    """`records` are those of the log."""

    port: int
    http: Server
    engine: Engine
    records: list[RequestRecord]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> OpenAI:
        """A client that does not repeat requests that fail."""
        return OpenAI(**{"base_url": f"{self.url}/v1", "api_key": "any", "max_retries": 0, "timeout": 120} | options)

    def is_idle(self) -> bool:
        """Whether no slot is taken and no request waits."""
        load = self.engine.load()
        return load.busy_slots == load.waiting_requests == 0

    def wait_for_statuses(self, expected: Sequence[int]) -> None:
        """Wait until the log has requests with these statuses: it gets them after the clients have their answers."""
        wait_until(lambda: sorted(record.status for record in self.records) == sorted(expected))

    def check_is_free(self) -> None:
        """Within a while, no slot is taken, and a request is answered."""
        wait_until(self.is_idle)
        with self.client() as client:
            assert client.completions.create(model="tiny", prompt="Hi", max_tokens=1).usage is not None


@contextmanager
def live_server(
    decoder: CPUDecoder, slots: int = 4, max_queue: int = 64, key: str | None = None
) -> Iterator[LiveServer]:
    """Serve a model as `tiny`."""
    records: list[RequestRecord] = []
    service = Service(ServeConfig(port=0, api_key=key), records.append)
    engine = Engine(decoder, slots, max_queue)
    service.begin(served_model(decoder, "tiny"), engine)
    listener = bind(service.config)
    runs = Thread(target=engine.run)
    with listening(service, listener) as http:
        runs.start()
        try:
            yield LiveServer(listener.getsockname()[1], http, engine, records)
        finally:
            engine.end(0)
            runs.join()
