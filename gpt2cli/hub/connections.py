"""Connections by huggingface_hub's HTTP client, with time limits, checked redirections, and our errors.

A server that sends a byte a second never exceeds the timeout of a single read. So the headers of an answer have a
deadline, and its body has a minimum rate.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Thread
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from gpt2cli.errors import NetworkError
from gpt2cli.hub.resumable_download import TemporaryError, TooSlowError

DEADLINE = 3.0
"""The time until all headers are there, those of redirections included, in timeouts of a single read."""
LEAST_RATE = 1000.0
"""The least bytes a second of a body, averaged over RATE_SECONDS."""
RATE_SECONDS = 60.0
MAX_REDIRECTS = 10

T = TypeVar("T")


@dataclass(frozen=True)
class Server:
    """A server, and how error messages name it.

    address  an address of the server
    wanted   what is downloaded from it or uploaded to it
    advice   what to do if the server's answer makes no sense
    """

    address: str
    wanted: str
    advice: str

    def get(
        self,
        stack: ExitStack,
        address: str,
        headers: dict[str, str],
        timeout: float,
        check: Callable[[str], None] | None = None,
    ) -> Any:
        """The client's response to a GET request, whose body is not read yet. `stack` closes it.

        Redirections are followed. With `check`, each new address is passed to it before it is used, and it raises an
        error for a forbidden one.
        """
        from huggingface_hub import get_session

        session = get_session()

        def ask() -> Any:
            there = address
            for _ in range(MAX_REDIRECTS + 1):
                request = session.build_request("GET", there, headers=headers, timeout=timeout)
                response = session.send(request, stream=True, follow_redirects=check is None)
                if check is None or not response.has_redirect_location:
                    return response
                response.close()
                there = urljoin(there, response.headers["Location"])
                check(there)
            raise NetworkError(f"{self.wanted}: more than {MAX_REDIRECTS} redirections: {self.advice}")

        with self.errors():
            response = answer_in_time(ask, timeout)
        stack.callback(response.close)
        return response

    def chunks(self, response: Any) -> Iterator[bytes]:
        """The body of a response. Raises TemporaryError if it breaks off, or comes too slowly."""
        with self.errors():
            yield from steady(response.iter_bytes(), self.address)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the client's exceptions into ours, without their texts: these may quote a header, and so the token."""
        try:
            yield
        except Exception as error:
            ours = self._translated(error)
            if ours is error:
                raise
            raise ours from None

    def _translated(self, error: Exception) -> Exception:
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

        kind, peer = type(error).__name__, route(self.address)
        if isinstance(error, ImportError):
            return NetworkError("the proxy is of a kind (SOCKS) that is not supported: unset ALL_PROXY")
        if isinstance(error, TimeoutError) or (isinstance(error, HTTPError) and kind.endswith("Timeout")):
            return TemporaryError(f"no answer in time from {peer}")
        if isinstance(error, ValueError) or kind in ("InvalidURL", "UnsupportedProtocol"):
            return NetworkError(f"{self.wanted}: an address is wrong, the server's or a proxy's: {self.advice}")
        if not isinstance(error, HTTPError):
            return error
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return NetworkError(f"the certificate of {urlsplit(self.address).hostname} cannot be verified: refused")
        if kind in ("ConnectError", "ProxyError"):
            return TemporaryError(f"no connection to {peer}")
        return TemporaryError(f"the connection to {peer} broke off")


def answer_in_time(ask: Callable[[], T], timeout: float) -> T:
    """Returns or raises what `ask` does; TimeoutError if that takes longer than DEADLINE times `timeout` seconds.

    The call then continues in a daemon thread, and its result is ignored.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return answer.result(timeout=DEADLINE * timeout)
    except FutureTimeoutError:  # before Python 3.11, this is no TimeoutError
        raise TimeoutError from None


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
    """The host of an address for a message, with the variables of the environment that set the host and a proxy."""
    parts = urlsplit(address)
    host, proxies = parts.hostname or "", getproxies_environment()
    kind = next((kind for kind in (parts.scheme, "all") if proxies.get(kind)), None)
    named = f"{host} (HF_ENDPOINT)" if address == os.environ.get("HF_ENDPOINT", "").rstrip("/") else host
    if kind is None or proxy_bypass(host):
        return named
    try:
        proxy = urlsplit(proxies[kind] if "//" in proxies[kind] else f"//{proxies[kind]}")
        where = f"{proxy.hostname}:{proxy.port}" if proxy.port else proxy.hostname  # without a name and a password
    except ValueError:
        where = "in the environment"
    return f"{named} through the proxy {where} ({kind.upper()}_PROXY)"
