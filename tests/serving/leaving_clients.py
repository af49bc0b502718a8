"""Clients that leave a server at random moments."""

import asyncio
import random
import socket
from collections import Counter
from typing import Any

from gpt2cli.config import VOCAB_SIZE
from tests.serving import raw_client

AT_ONCE = 24
WAYS = ("without a request", "within a request", "before the answer", "in mid-stream", "with a stream unread")


async def come_and_leave(port: int, choose: random.Random, count: int, window: int) -> Counter[str]:
    """Let `count` clients come, AT_ONCE at a time, and leave in random ways. Returns how often each way was taken."""
    taken: Counter[str] = Counter()

    async def clients(numbers: range) -> None:
        for _ in numbers:
            way = choose.choice(WAYS)
            taken[way] += 1
            await _come_and_leave(port, choose, way, window)

    await asyncio.gather(*(clients(range(first, count, AT_ONCE)) for first in range(AT_ONCE)))
    return taken


async def _come_and_leave(port: int, choose: random.Random, way: str, window: int) -> None:
    """Half of the clients close their connection in order, the others reset it."""
    request = raw_client.request_bytes(port, raw_client.COMPLETIONS, _body(choose, way, window))
    receiver = socket.socket()
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that an unread stream soon blocks the server
    receiver.setblocking(False)
    await asyncio.get_running_loop().sock_connect(receiver, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=receiver, limit=2**12)
    connection = raw_client.Connection(reader, writer)
    if way == "within a request":
        writer.write(request[: choose.randrange(1, len(request))])
    elif way != "without a request":
        writer.write(request)
    if way == "in mid-stream":
        wanted = choose.randint(1, 40)
        async for _ in raw_client.events(connection):
            wanted -= 1
            if not wanted:
                break
    else:
        await asyncio.sleep(choose.expovariate(1 / 0.2))
    if choose.random() < 0.5:
        writer.transport.abort()
    await connection.close()


def _body(choose: random.Random, way: str, window: int) -> dict[str, Any]:
    """Mostly a short prompt; a long answer, so that the client leaves before its end."""
    tokens = min(window, choose.choice([1, 10, 50, window // 2, window]))
    return {
        "prompt": choose.choices(range(VOCAB_SIZE), k=tokens),
        "max_tokens": choose.randint(1, 1000),
        "n": choose.choice([1, 1, 1, 3]),
        "logprobs": choose.choice([None, 5]),
        "stream": way in ("in mid-stream", "with a stream unread") or choose.random() < 0.5,
    }
