"""Fetching models from the Hugging Face Hub into the cache: what to fetch, what to believe, what to say if it fails.

The Hub's own client knows the addresses, the headers and the token. The bytes are written and checked by `transfer`,
since the client takes a file's digest on trust. A server's answers are untrusted: none becomes part of a path before
it has been checked.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gpt2cli import __version__, paths
from gpt2cli.atomic import sync_directory
from gpt2cli.checkpoints import cache
from gpt2cli.checkpoints.cache import CachedModel
from gpt2cli.checkpoints.refusals import MissingFileError, refusal
from gpt2cli.checkpoints.transfer import Note, RemoteFile, TemporaryError, fetch, matches, persist
from gpt2cli.checkpoints.transfer import Progress as Progress  # for the callers of download, as is ignore
from gpt2cli.checkpoints.transfer import ignore as ignore
from gpt2cli.errors import CheckpointError, NetworkError, ResourceError

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
MAX_SIZE = 2**40
MAX_INDEX = 2**24
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHARD = re.compile(r"\w[\w-]{0,99}\.safetensors", re.ASCII)


def resolve(name: str, *, offline: bool = False, progress: Progress = ignore) -> Path:
    """The directory of a model by name (`gpt2`, `owner/name[@revision]`), downloaded if it is not on disk.

    Raises UsageError for what is no name, and whatever `download` raises.
    """
    repo, revision = cache.parse_name(name)
    return download(repo, revision, offline=offline, progress=progress).path


def download(
    repo: str, revision: str, *, force: bool = False, offline: bool = False, progress: Progress = ignore
) -> CachedModel:
    """The model on disk, fetched if it is not there, or in any case with `force`.

    Raises NetworkError if the Hub does not answer, refuses, or talks nonsense; CheckpointError if it sends bytes
    that are not the announced ones, or has no safetensors; ResourceError if the disk is too small.
    """
    found = None if force else cache.find(repo, revision)
    if found:
        return found
    model = cache.short_name(repo) + ("" if revision == cache.DEFAULT_REVISION else f"@{revision}")
    if offline or _is_offline():
        why = "" if force else "it is not on disk and "
        why += "the network is off (--offline or HF_HUB_OFFLINE)"
        raise NetworkError(f"cannot use {model}: {why}: go online once, or use --model tiny, which needs no network")
    with cache.lock(repo, lambda: progress(Note(f"another process is downloading {model}: waiting for it"))):
        # the one that held the lock may have fetched it meanwhile
        found = None if force else cache.find(repo, revision)
        return found or _download(_Remote(repo, revision, progress), force)


def _is_offline() -> bool:
    """Whether the environment says so, in the Hub client's own words."""
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in {"1", "ON", "YES", "TRUE"}


@dataclass(frozen=True)
class _Remote:
    """A repository at a revision, at the other end of the line."""

    repo: str
    revision: str
    progress: Progress

    def head(self, name: str) -> tuple[str, RemoteFile]:
        """The commit that the revision is at, and a file's size and digest. Raises MissingFileError, NetworkError."""
        return persist(lambda: self._head(name), self.progress)

    def file(self, name: str) -> RemoteFile | None:
        """A file's size and digest, or None if the repository does not have it."""
        try:
            commit, file = self.head(name)
        except MissingFileError:
            return None
        if commit != self.revision:
            raise NetworkError(f"{self.repo}: the server answers for another commit than asked: try again later")
        return file

    def _head(self, name: str) -> tuple[str, RemoteFile]:
        from huggingface_hub import constants, get_hf_file_metadata

        with self._errors(name):
            found = get_hf_file_metadata(self._url(name), headers=_headers(), timeout=constants.HF_HUB_ETAG_TIMEOUT)
        commit, digest, size = found.commit_hash or "", found.etag or "", found.size
        if not cache.COMMIT.fullmatch(commit) or not _DIGEST.fullmatch(digest):
            raise NetworkError(f"{self.repo}: the server's commit or ETag for {name} is no hash: is HF_ENDPOINT a Hub?")
        if size is None or not 0 < size <= MAX_SIZE:
            raise NetworkError(f"{self.repo}: the server's size for {name} makes no sense: is HF_ENDPOINT a Hub?")
        return commit, RemoteFile(name, size, digest)

    @contextmanager
    def body(self, name: str, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """A file's bytes from an offset on, or from 0 if the server does not do parts: see transfer.OpenBody."""
        from huggingface_hub import constants, get_session

        headers = _headers() | {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        line = get_session().stream("GET", self._url(name), headers=headers, timeout=timeout, follow_redirects=True)
        with self._errors(name), line as response:
            if response.status_code not in (200, 206):
                raise self._refusal(response, name)
            yield offset if response.status_code == 206 else 0, response.iter_bytes()

    def _url(self, name: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repo, name, revision=self.revision)

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        """Turn the client's exceptions into ours. Their texts stay out: they may quote a header, and so a token."""
        from huggingface_hub import constants
        from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

        try:
            yield
        except HfHubHTTPError as error:
            raise self._refusal(error.response, name) from None
        except HTTPError as error:
            kind, host = type(error).__name__, urlsplit(constants.ENDPOINT).hostname
            what = "no answer in time" if kind.endswith("Timeout") else "no connection"
            raise TemporaryError(f"{what} from {host} ({kind})") from None
        except ValueError:
            raise NetworkError(f"{self.repo}: the server sends a wrong address: is HF_ENDPOINT a Hub?") from None

    def _refusal(self, response: Any, name: str) -> Exception:
        return refusal(response.status_code, response.headers, self.repo, self.revision, name)


def _headers() -> dict[str, str]:
    """The Hub client's headers, with the token if there is one. Raises NetworkError for what cannot be a token."""
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    headers: dict[str, str] = build_hf_headers(library_name="gpt2cli", library_version=__version__)
    token = headers.get("authorization", "")
    if not (token.isascii() and token.isprintable()):
        raise NetworkError("HF_TOKEN holds characters that no token has: set it again, or unset it")
    return headers


def _download(source: _Remote, force: bool) -> CachedModel:
    """Fetch a whole model and publish it in the cache. Files of the same commit that are there are kept."""
    # read when the client is imported, which would else ask for more than the model, to describe the machine
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    commit, config = source.head(CONFIG)
    if cache.COMMIT.fullmatch(source.revision) and commit != source.revision:
        raise NetworkError(f"{source.repo}: the server answers for another commit than asked: try again later")
    cache.sweep(source.repo, keep=commit)
    pinned = _Remote(source.repo, commit, source.progress)
    whole = pinned.file(WEIGHTS)
    files = [config, whole or _index(pinned)]
    _bring(pinned, files, force)
    if not whole:
        shards = _shards(cache.repo_directory(source.repo) / commit / INDEX, pinned)
        _bring(pinned, shards, force)
        files += shards
    cache.publish(source.repo, source.revision, commit, files)
    shutil.rmtree(_staging(pinned), ignore_errors=True)
    found = cache.find(source.repo, source.revision)
    if found is None:
        raise ResourceError(f"{source.repo} came and is gone again: does something clean up {paths.models()}?")
    return found


def _index(source: _Remote) -> RemoteFile:
    """The list of weights in shards. Raises CheckpointError if the repository has weights of other kinds only."""
    index = source.file(INDEX)
    if index is None:
        if any(source.file(name) for name in PICKLES):
            why = "has its weights as .bin only, a pickle that can run code"
            raise CheckpointError(f"{source.repo} {why}, refused: convert it to safetensors, or use another repository")
        raise CheckpointError(f"{source.repo} holds no {WEIGHTS}: use a repository with safetensors weights")
    if index.size > MAX_INDEX:
        raise CheckpointError(f"{source.repo}: {INDEX} is too large ({index.size} bytes): use another repository")
    return index


def _shards(index: Path, source: _Remote) -> list[RemoteFile]:
    """The files that an index names. They become paths here, so only plain names are let through."""
    try:
        names = sorted({str(name) for name in json.loads(index.read_bytes())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{source.repo}: {INDEX} is no index of weights: use another repository") from None
    bad = [name for name in names if not _SHARD.fullmatch(name)]
    if bad or not names:
        raise CheckpointError(f"{source.repo}: {INDEX} names {bad[:1] or 'no file'}, not plain .safetensors: refused")
    return [source.head(name)[1] for name in names]


def _bring(source: _Remote, files: list[RemoteFile], force: bool) -> None:
    """Fetch the files that are not there yet, each into the staging directory and from there, checked, into place."""
    target, staging = cache.repo_directory(source.repo) / source.revision, _staging(source)
    missing = [file for file in files if force or not matches(target / file.name, file)]
    _check_space(sum(file.size for file in missing) - sum(_size(staging / file.name) for file in missing))
    staging.mkdir(parents=True, exist_ok=True)
    target.mkdir(exist_ok=True)
    for file in missing:
        fetch(file, staging / file.name, partial(source.body, file.name), source.progress)
        (staging / file.name).replace(target / file.name)
        sync_directory(target)


def _staging(source: _Remote) -> Path:
    return cache.repo_directory(source.repo) / ".staging" / source.revision


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_space(needed: int) -> None:
    models = paths.models()
    free = shutil.disk_usage(models).free
    if needed > free:
        sizes = f"{needed / 1e6:,.1f} MB are needed in {models}, {free / 1e6:,.1f} MB are free"
        raise ResourceError(f"{sizes}: make room, or set GPT2CLI_HOME to a directory on another disk")
