"""Limits on the time that a connection takes, besides the timeout of a single read.

A server that sends a byte a second never exceeds a timeout. So the headers of an answer have a deadline, and its body
has a minimum rate.
"""

import queue
from collections.abc import Callable, Iterable, Iterator
from threading import Thread
from time import monotonic
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from gpt2cli.hub.resumable_download import TooSlowError

DEADLINE = 3.0
"""The time until all headers are there, those of redirections included, in timeouts of a single read."""
LEAST_RATE = 1000.0
"""The least bytes a second of a body, averaged over RATE_SECONDS."""
RATE_SECONDS = 60.0

T = TypeVar("T")


def answer_in_time(ask: Callable[[], T], timeout: float) -> T:
    """What `ask` returns or raises. Raises TimeoutError if that takes longer than DEADLINE times `timeout` seconds.

    The call then continues in a daemon thread, and its result is ignored.
    """
    outcome: queue.SimpleQueue[tuple[list[T], BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put(([ask()], None))
        except BaseException as error:
            outcome.put(([], error))

    Thread(target=run, daemon=True).start()
    try:
        answers, error = outcome.get(timeout=DEADLINE * timeout)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return answers[0]


def steady(chunks: Iterable[bytes], address: str) -> Iterator[bytes]:
    """The chunks of a body from `address`. Raises TooSlowError if they come more slowly than LEAST_RATE."""
    start, received = monotonic(), 0
    for chunk in chunks:
        yield chunk
        received += len(chunk)
        seconds = monotonic() - start
        if seconds >= RATE_SECONDS:
            if received < LEAST_RATE * seconds:
                raise TooSlowError(f"less than {LEAST_RATE / 1000:g} kB/s from {route(address)}")
            start, received = monotonic(), 0


def route(address: str) -> str:
    """The host of an address, as a message names it, with the proxy if the environment names one."""
    parts = urlsplit(address)
    host, proxies = parts.hostname or "", getproxies_environment()
    kind = next((kind for kind in (parts.scheme, "all") if proxies.get(kind)), None)
    if kind is None or proxy_bypass(host):
        return host
    try:
        proxy = urlsplit(proxies[kind] if "//" in proxies[kind] else f"//{proxies[kind]}")
        where = f"{proxy.hostname}:{proxy.port}" if proxy.port else proxy.hostname  # without a name and a password
    except ValueError:
        where = "in the environment"
    return f"{host} through the proxy {where} ({kind.upper()}_PROXY)"
