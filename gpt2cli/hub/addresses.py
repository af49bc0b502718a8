"""Downloads from https addresses outside of the Hub. Their digests are not known."""

import os
import re
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from gpt2cli import __version__
from gpt2cli.errors import NetworkError, UsageError
from gpt2cli.hub.connections import Server
from gpt2cli.hub.http_errors import refusal
from gpt2cli.hub.hub_client import prepare_client
from gpt2cli.hub.resumable_download import TemporaryError, append, persist
from gpt2cli.progress import Progress, Received

MAX_BYTES = 2**32
TIMEOUT = 10.0
"""Seconds without a byte after which a try has failed."""
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_HEADERS = {"User-Agent": f"gpt2cli/{__version__}", "Accept-Encoding": "identity"}


def is_address(text: str) -> bool:
    """Whether a text is an address of any kind, and not a path."""
    return bool(_ADDRESS.match(text))


def without_query(address: str) -> str:
    """An address without its query, which may hold a key. A path is returned unchanged."""
    return address.partition("?")[0] if is_address(address) else address


def check_address(address: str) -> None:
    """Raise UsageError for an address that needs an unencrypted connection, or that holds a password."""
    try:
        parts = urlsplit(address)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        raise UsageError(f"{address[:200]!r} is not an address: give one that starts with https://") from None
    if "@" in parts.netloc or not parts.hostname or not port_is_valid:
        raise UsageError("an address must hold a host, and no name or password: download the file yourself and give it")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL_HOSTS):
        raise UsageError(
            f"{without_query(address)}: only https is allowed (http only on this machine): give an https address"
        )


def download(address: str, part: Path, progress: Progress) -> None:
    """Download an address to `part`. Redirections must lead to addresses that `check_address` allows.

    Each try starts from the first byte, as the file may have changed. Raises NetworkError if the server does not
    answer, refuses, or sends more than MAX_BYTES, and ResourceError if the file cannot be written.
    """
    prepare_client()
    persist(lambda: _attempt(address, part, progress), progress)


def _attempt(address: str, part: Path, progress: Progress) -> None:
    name, shown, done = urlsplit(address).path.rpartition("/")[2], without_query(address), 0
    server = Server(address, shown, "check the address")
    with ExitStack() as stack, part.open("wb") as out:
        response = server.get(stack, address, _HEADERS, TIMEOUT, check=partial(_check_redirection, shown))
        if not response.is_success:
            known = refusal(response.status_code, response.headers, shown, "", name)
            if isinstance(known, TemporaryError):
                raise known
            raise NetworkError(f"{shown}: the server answers HTTP {response.status_code}: check the address")
        length = response.headers.get("Content-Length", "")
        total = int(length[:20]) if length.isdecimal() else 0
        try:
            for chunk in server.chunks(response):
                done += len(chunk)
                if done > MAX_BYTES:
                    raise NetworkError(f"{shown}: the server sends more than {MAX_BYTES:,} bytes: use a smaller file")
                append(out.fileno(), chunk, part)
                progress(Received(name, done, total or done))
        except TemporaryError as error:  # the client compares what came with the announced length
            raise type(error)(f"{name}: got {done} of {total or 'its'} bytes ({error})") from None
        os.fsync(out.fileno())


def _check_redirection(source: str, address: str) -> None:
    try:
        check_address(address)
    except UsageError:
        raise NetworkError(f"{source} redirects to an address that is not https: refused") from None
