"""A repository on the Hugging Face Hub: sizes and digests of its files, their contents, and uploads.

huggingface_hub's client gives the addresses, the headers and the token.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gpt2cli import __version__
from gpt2cli.errors import NetworkError, UsageError
from gpt2cli.hub.connections import Server, answer_in_time
from gpt2cli.hub.http_errors import MissingFileError, refusal, upload_refusal
from gpt2cli.hub.names import COMMIT
from gpt2cli.hub.resumable_download import DIGEST, RemoteFile, TemporaryError, persist
from gpt2cli.progress import Progress

MAX_SIZE = 2**40
UPLOAD_TIMEOUT = 120.0
"""Seconds that a server may take to answer a part of an upload. The client itself has no limit."""
EMPTY = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
"""Git's digest of an empty file."""
_ADDRESS = re.compile(r"https?://[^\s/?#]+(/\S*)?")


def prepare_client() -> None:
    """Set up the Hub's client. Raises UsageError for an invalid HF_ENDPOINT, which would make its import fail."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        valid = _ADDRESS.fullmatch(endpoint) and urlsplit(endpoint).port != 0
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(f"HF_ENDPOINT is {endpoint!r}, not an address such as https://huggingface.co: set or unset it")
    # the client reads this when it is imported; without it, its requests describe the machine
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub.utils import logging as client_logging

    # the client would print the server's X-HF-Warning header, which can hold control characters
    client_logging.set_verbosity(logging.CRITICAL + 1)


@dataclass(frozen=True)
class Remote:
    """A repository on the Hub, at a revision."""

    repo: str
    revision: str
    progress: Progress
    kind: str = "model"  # or "dataset"

    def head(self, name: str) -> tuple[str, RemoteFile]:
        """The commit of the revision, and a file's size and digest. Raises MissingFileError or NetworkError."""
        return persist(lambda: self._head(name), self.progress)

    def file(self, name: str) -> RemoteFile | None:
        """A file's size and digest; None if the file is empty, or not in the repository."""
        try:
            commit, file = self.head(name)
        except MissingFileError:
            return None
        if commit != self.revision:
            raise NetworkError(f"{self.repo}: the server answers for another commit than asked: try again later")
        return file

    def _head(self, name: str) -> tuple[str, RemoteFile]:
        from huggingface_hub import constants, get_hf_file_metadata

        timeout = constants.HF_HUB_ETAG_TIMEOUT
        with self._errors(name):
            url, headers = self._url(name), _headers()
            found = answer_in_time(lambda: get_hf_file_metadata(url, headers=headers, timeout=timeout), timeout)
        commit, digest, size = found.commit_hash or "", found.etag or "", found.size
        if not COMMIT.fullmatch(commit) or not DIGEST.fullmatch(digest):
            raise NetworkError(
                f"{self.repo}: the server's commit or ETag for {name} is not a hash: is HF_ENDPOINT a Hub?"
            )
        if size == 0 and digest == EMPTY:
            raise MissingFileError(f"{self.repo}: {name} is empty: use another repository")
        if size is None or not 0 < size <= MAX_SIZE:
            raise NetworkError(f"{self.repo}: the server's size for {name} makes no sense: is HF_ENDPOINT a Hub?")
        return commit, RemoteFile(name, size, digest)

    @contextmanager
    def body(self, name: str, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """A file's bytes from an offset on, or from 0 if the server does not support ranges: see `OpenBody`."""
        from huggingface_hub import constants

        headers = _headers() | {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        server = self._server()
        with ExitStack() as stack:
            response = server.get(stack, self._url(name), headers, constants.HF_HUB_DOWNLOAD_TIMEOUT)
            if response.status_code not in (200, 206):
                raise self._refusal(response, name)
            yield offset if response.status_code == 206 else 0, server.chunks(response)

    def upload(self, files: list[Path], private: bool) -> str:
        """Upload files in one commit, and return the repository's address.

        A repository that does not exist is created, as a private one if `private`. Raises NetworkError.
        """
        from huggingface_hub import constants, get_session
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

        disable_progress_bars()
        get_session().timeout = UPLOAD_TIMEOUT
        persist(lambda: self._upload(files, private), self.progress)
        return f"{constants.ENDPOINT}/{self.repo}"

    def _upload(self, files: list[Path], private: bool) -> None:
        from huggingface_hub import CommitOperationAdd, HfApi

        _headers()  # raises for an invalid token
        api = HfApi(library_name="gpt2cli", library_version=__version__)
        with self._errors("the upload", uploading=True):
            try:
                api.create_repo(self.repo, private=private, exist_ok=True)
                # the client stores its state in these operations, so each try needs new ones
                operations = [CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file) for file in files]
                api.create_commit(self.repo, operations, commit_message="Upload from gpt2 export")
            except (AttributeError, LookupError, TypeError, ValueError):
                raise NetworkError(f"{self.repo}: the server's answer makes no sense: is HF_ENDPOINT a Hub?") from None
            except RuntimeError as error:  # the client wraps an error with one file
                if error.__cause__ is None:
                    raise TemporaryError(f"the upload to {self.repo} broke off") from None
                raise error.__cause__ from None

    def _url(self, name: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repo, name, revision=self.revision, repo_type=self.kind)

    def _server(self) -> Server:
        from huggingface_hub import constants

        return Server(constants.ENDPOINT, self.repo, "check HF_ENDPOINT and the proxy")

    @contextmanager
    def _errors(self, name: str, uploading: bool = False) -> Iterator[None]:
        """As `Server.errors`, and also for exceptions about HTTP statuses."""
        from huggingface_hub.errors import HfHubHTTPError

        with self._server().errors():
            try:
                yield
            except HfHubHTTPError as error:
                if uploading:
                    raise upload_refusal(error.response.status_code, error.response.headers, self.repo) from None
                raise self._refusal(error.response, name) from None

    def _refusal(self, response: Any, name: str) -> Exception:
        return refusal(response.status_code, response.headers, self.repo, self.revision, name)


def _headers() -> dict[str, str]:
    """The Hub client's headers, with the token if there is one. Raises NetworkError for an invalid token."""
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    headers: dict[str, str] = build_hf_headers(library_name="gpt2cli", library_version=__version__)
    token = headers.get("authorization", "")
    if not (token.isascii() and token.isprintable()):
        raise NetworkError("HF_TOKEN holds characters that no token has: set it again, or unset it")
    return headers
