"""Fetching a file of records: the two well-known ones, or any at an address. What came is kept for the next time."""

import hashlib
import http.client
import os
import re
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit

from gpt2cli import __version__, paths
from gpt2cli.atomic import sync_directory
from gpt2cli.data.records import SUFFIXES, read_records
from gpt2cli.errors import DataError, NetworkError, ResourceError, UsageError
from gpt2cli.hub import models
from gpt2cli.hub.connections import answer_in_time, route, steady
from gpt2cli.hub.http_errors import refusal
from gpt2cli.hub.model_cache import lock_file
from gpt2cli.hub.resumable_download import LastingError, TemporaryError, persist
from gpt2cli.progress import Note, Progress, Received, ignore
from gpt2cli.untrusted import is_file, missing

CLEANED_REPO, CLEANED_FILE = "yahma/alpaca-cleaned", "alpaca_data_cleaned.json"
ORIGINAL = "https://raw.githubusercontent.com/tatsu-lab/stanford_alpaca/main/alpaca_data.json"
MAX_BYTES = 2**32
TIMEOUT = 10.0
"""Seconds without a byte after which a server is given up."""
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def fetch_source(source: str, offline: bool = False, progress: Progress = ignore) -> Path:
    """The file that is meant: `cleaned`, `original`, an https address, or a path. A download is kept, and used again.

    cleaned   https://huggingface.co/datasets/yahma/alpaca-cleaned, checked against the Hub's digest
    original  https://github.com/tatsu-lab/stanford_alpaca

    Raises UsageError for what is none of these, NetworkError if the file does not come, and DataError if what comes
    from an address is no file of records.
    """
    if source == "cleaned":
        bring = partial(models.download_from_dataset, CLEANED_REPO, CLEANED_FILE)
        return _kept(source, f"{CLEANED_REPO.replace('/', '--')}--{CLEANED_FILE}", bring, offline, progress)
    address = ORIGINAL if source == "original" else source
    if _ADDRESS.match(address):
        return _kept(source, _file_name(address), partial(_bring, address), offline, progress)
    path = paths.expand(source)
    if not is_file(path):
        raise UsageError(
            f"{source} is {missing(path)}: give cleaned, original, an https address, or a .json or .jsonl file"
        )
    return path


def _kept(source: str, name: str, bring: Callable[..., None], offline: bool, progress: Progress) -> Path:
    """The download of this name, brought if it is not there. One process at a time brings it."""
    file = paths.datasets() / "downloads" / name
    if file.is_file():
        progress(Note(f"using {file}, downloaded before: delete it to fetch {source} again"))
        return file
    if offline or models.is_offline():
        why = "it is not on disk and the network is off (--offline or HF_HUB_OFFLINE)"
        raise NetworkError(f"cannot use {source}: {why}: go online once, or give a file of your own as --source")
    waiting = Note(f"another process is downloading {shown(source)}: waiting for it")
    with lock_file(file.with_name(f".{name}.lock"), lambda: progress(waiting)):
        if not file.is_file():
            part = file.with_name(f".part-{name}")
            try:
                bring(part, progress=progress)
            except LastingError as error:
                what = f"Alpaca ({source})" if source in ("cleaned", "original") else shown(source)
                raise NetworkError(f"cannot fetch {what}: {error}; a file of your own needs no network") from None
            part.replace(file)
            sync_directory(file.parent)
    return file


def _file_name(address: str) -> str:
    """A name for what is kept of an address: its own last part, in plain characters, and a digest of the whole."""
    _check(address)
    name = Path(unquote(urlsplit(address).path)).name
    if not name.endswith(SUFFIXES):
        raise UsageError(f"{shown(address)} ends in neither {' nor '.join(SUFFIXES)}: give the address of such a file")
    return f"{hashlib.sha256(address.encode()).hexdigest()[:12]}-{re.sub(r'[^A-Za-z0-9._-]', '_', name)[-80:]}"


def _check(address: str) -> None:
    """Raise UsageError for an address that would be asked, or answered, in the open, or that holds a password."""
    try:
        parts = urlsplit(address)
        port_is_one = parts.port is None or parts.port > 0
    except ValueError:
        raise UsageError(f"{address[:200]!r} is no address: give one that starts with https://") from None
    if "@" in parts.netloc or not parts.hostname or not port_is_one:
        raise UsageError("an address is to hold a host, and no name or password: fetch the file yourself and give it")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL_HOSTS):
        raise UsageError(f"{shown(address)}: only https is fetched, and http from this machine: give such an address")


def shown(source: str) -> str:
    """A source as it may be shown and stored: an address without its query, which may hold a key."""
    return source.partition("?")[0] if _ADDRESS.match(source) else source


def _bring(address: str, part: Path, progress: Progress) -> None:
    """Fetch an address into `part`, whole, and see that it holds records. There is no digest to check.

    What an earlier run left there is not gone on from: nothing tells the start of one version from that of another.
    """
    try:
        persist(lambda: _attempt(address, part, progress), progress)
        read_records(part, skip_bad=True)
    except DataError as error:
        part.unlink()
        reason = str(error).replace(str(part), "what came")
        raise DataError(f"{shown(address)} is no file of records: {reason}") from None


def _attempt(address: str, part: Path, progress: Progress) -> None:
    """Write the whole answer to `part`. Raises TemporaryError if trying again may help, else NetworkError."""
    name = urlsplit(address).path.rpartition("/")[2]
    with _errors(address), _open(address) as response, part.open("wb") as out:
        length = response.headers.get("Content-Length", "")
        total = int(length[:20]) if length.isdecimal() else 0
        done = 0
        for chunk in steady(iter(lambda: response.read1(2**16), b""), address):
            done += len(chunk)
            if done > MAX_BYTES:
                raise NetworkError(
                    f"{shown(address)}: more than {MAX_BYTES:,} bytes came, refused: give a smaller file"
                )
            _write(out, chunk, part)
            progress(Received(name, done, total or done))
        if done < total:
            raise TemporaryError(f"{name}: got {done} of {total} bytes (the connection closed)")
        os.fsync(out.fileno())


def _open(address: str) -> Any:
    headers = {"User-Agent": f"gpt2cli/{__version__}", "Accept-Encoding": "identity"}
    opener = urllib.request.build_opener(_CheckedRedirects)
    request = urllib.request.Request(address, headers=headers)
    return answer_in_time(lambda: opener.open(request, timeout=TIMEOUT), TIMEOUT)


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """A server may not lead to where an address of the user's may not."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            _check(newurl)
        except UsageError:
            raise NetworkError(f"{shown(req.full_url)} leads on to an address that is not https: refused") from None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _write(out: IO[bytes], chunk: bytes, part: Path) -> None:
    """Write, and tell a full disk from a line that broke."""
    try:
        out.write(chunk)
    except OSError as error:
        raise ResourceError(f"cannot write {part} ({error.strerror}): free some space") from None


@contextmanager
def _errors(address: str) -> Iterator[None]:
    """Turn what urllib raises into our own. Nothing that a server writes is passed on."""
    host = urlsplit(address).hostname
    try:
        yield
    except HTTPError as error:
        name = urlsplit(address).path.rpartition("/")[2]
        known = refusal(error.code, dict(error.headers), host or "", "", name)
        if isinstance(known, TemporaryError):
            raise known from None
        raise NetworkError(f"{shown(address)}: the server answers HTTP {error.code}: check the address") from None
    except (URLError, OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise NetworkError(f"the certificate of {host} is not to be trusted: refused") from None
        peer = route(address)
        what = f"no answer in time from {peer}" if isinstance(reason, TimeoutError) else f"no connection to {peer}"
        raise TemporaryError(what) from None
    except ValueError:  # numbers and addresses that urllib did not expect
        raise NetworkError(f"{shown(address)}: the server's answer makes no sense: check the address") from None
