"""Clients that leave at random moments leave nothing behind: no task, no connection, no slot."""

import asyncio
import random

import pytest

from gpt2cli.inference.decoder import has_kernels
from tests.models import SMALL
from tests.runner import wait_until
from tests.serving import leaving_clients, raw_client
from tests.serving.live_server import live_server, small

pytestmark = pytest.mark.skipif(not has_kernels(), reason="no loops for this processor")
COUNT = 80
PROBE = {"prompt": "Once", "max_tokens": 20, "seed": 1, "temperature": 1}


def test_nothing_is_left_of_clients_that_left():
    with live_server(small(), slots=3) as server:

        def tasks() -> int:
            return len(asyncio.all_tasks(server.http.servers[0].get_loop()))

        connections = server.http.server_state.connections
        expected = asyncio.run(raw_client.ask(server.port, PROBE))["choices"]
        wait_until(lambda: not connections)
        before = tasks()
        asyncio.run(leaving_clients.come_and_leave(server.port, random.Random(0), COUNT, SMALL.block_size))
        wait_until(lambda: not connections and tasks() == before)
        wait_until(server.is_idle)  # the engine hears of the last ones at its next step
        assert asyncio.run(raw_client.ask(server.port, PROBE))["choices"] == expected
