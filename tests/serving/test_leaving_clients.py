"""Clients that leave at random moments leave nothing behind: no task, no connection, no slot."""

import asyncio
import random
from threading import Thread

import pytest

from gpt2cli.config import ServeConfig
from gpt2cli.inference.decoder import has_kernels
from gpt2cli.serving import http_server
from gpt2cli.serving.app import make_app
from gpt2cli.serving.engine import Engine, Load
from gpt2cli.serving.served_model import served_model
from gpt2cli.serving.service import Service
from tests import models
from tests.serving import leaving_clients, raw_client
from tests.serving.small_server import wait_until

pytestmark = pytest.mark.skipif(not has_kernels(), reason="no loops for this processor")
COUNT = 80
PROBE = {"prompt": "Once", "max_tokens": 20, "seed": 1, "temperature": 1}


def test_nothing_is_left_of_clients_that_left():
    decoder = models.packed(models.small_model(), "fp16")
    engine, service = Engine(decoder, slots=3, max_queue=64), Service(ServeConfig(port=0), lambda record: None)
    app, loops = make_app(service), []

    async def noting_loop(scope, receive, send):
        loops.append(asyncio.get_running_loop())
        await app(scope, receive, send)

    def tasks():
        return len(asyncio.all_tasks(loops[0]))

    listener = http_server.bind(service.config)
    port = listener.getsockname()[1]
    worker = Thread(target=engine.run)
    worker.start()
    try:
        with http_server.running(noting_loop, service, listener) as server:
            service.begin(served_model(decoder, "small"), engine)
            expected = asyncio.run(raw_client.ask(port, PROBE))["choices"]
            wait_until(lambda: not server.server_state.connections)
            before = tasks()
            asyncio.run(leaving_clients.come_and_leave(port, random.Random(0), COUNT, models.SMALL.block_size))
            wait_until(lambda: not server.server_state.connections and tasks() == before)
            wait_until(lambda: engine.load() == Load(0, 3, 0))  # the engine hears of the last ones at its next step
            assert asyncio.run(raw_client.ask(port, PROBE))["choices"] == expected
    finally:
        engine.end(0)
        worker.join()
