"""Many clients at once, and clients that end in other ways than by closing their connection."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from functools import partial

import pytest
from openai import AsyncOpenAI

from gpt2cli.serving import http_server
from gpt2cli.serving.connection import Limits
from tests.served_process import ENDLESS
from tests.serving.live_server import LiveServer, live_server, small
from tests.serving.small_server import post

READER = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), {"Content-Type": "application/json"})
answer = urllib.request.urlopen(request)  # the variable keeps the connection open
print(answer.readline().decode(), flush=True)
input()
"""
"""A program that reads the first line of an answer and waits."""


def test_two_hundred_connections_at_once() -> None:
    async def ask(url: str) -> list[str]:
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=300) as client:

            async def text(number: int) -> str:
                options = {"model": "tiny", "prompt": "A", "max_tokens": 8, "seed": number % 4}
                if number % 2:
                    return str((await client.completions.create(**options)).choices[0].text)
                stream = await client.completions.create(stream=True, **options)
                return "".join([chunk.choices[0].text async for chunk in stream])

            return await asyncio.gather(*map(text, range(200)))

    with live_server(small(), max_queue=200) as server:
        texts = asyncio.run(ask(server.url))
        assert len({*texts[:4]}) == 4
        assert texts == texts[:4] * 50
        server.wait_for_statuses([200] * 200)
        server.check_is_free()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9")
def test_a_client_that_is_killed_in_mid_stream_frees_its_slot() -> None:
    with live_server(small()) as server:
        body = json.dumps({"prompt": "A", "stream": True, **ENDLESS})
        command = [sys.executable, "-c", READER, f"{server.url}/v1/completions", body]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            assert client.stdout.readline().startswith("data: {")
            assert server.engine.load().busy_slots == 1
            client.kill()
        server.wait_for_statuses([499])
        server.check_is_free()


def test_a_client_that_reads_nothing_frees_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "Limits", partial(Limits, stalled=0.5))
    body = json.dumps({"prompt": "A", "stream": True, "logprobs": 20, "n": 4, **ENDLESS, "max_tokens": 2300}).encode()
    with live_server(small()) as server, connected(server) as client:
        client.sendall(post(body, "/v1/completions"))
        server.wait_for_statuses([499])
        server.check_is_free()


def connected(server: LiveServer) -> socket.socket:
    """A connection with little room for what is not read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", server.port))
    return client
