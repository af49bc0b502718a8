"""Error messages for the Hub's HTTP statuses. They never contain text from the server."""

from collections.abc import Mapping
from email.utils import mktime_tz, parsedate_tz
from time import time

from gpt2cli.errors import NetworkError
from gpt2cli.hub.resumable_download import TemporaryError


class MissingFileError(NetworkError):
    """The repository exists, but the file does not."""


def refusal(status: int, headers: Mapping[str, str], repo: str, revision: str, name: str) -> Exception:
    """The exception for an HTTP status: TemporaryError if trying again may help, else a NetworkError.

    The Hub's header X-Error-Code says what is missing.
    """
    if status in (408, 429) or status >= 500:
        reason = "the server is busy" if status == 429 else "the server has failed"
        return TemporaryError(f"{reason} (HTTP {status} for {name})", _retry_after(headers.get("Retry-After", "")))
    code = headers.get("X-Error-Code", "")
    if code == "GatedRepo":
        return NetworkError(f"{repo} is gated: accept its conditions on its web page, then set HF_TOKEN to your token")
    if status == 401:
        return NetworkError(f"{repo} does not exist, or is private (HTTP 401): check the name, or set HF_TOKEN")
    if status == 403:
        return NetworkError(f"{repo} may not be read with your token (HTTP 403): set HF_TOKEN to one that may")
    if code == "RepoNotFound":
        return NetworkError(f"{repo} does not exist (HTTP 404): check the name")
    if code == "RevisionNotFound":
        return NetworkError(f"{repo} has no revision {revision} (HTTP 404): give another one, such as main")
    if code == "EntryNotFound":
        return MissingFileError(f"{repo} has no {name} (HTTP 404): is it a model?")
    if status == 404:
        return MissingFileError(f"{repo}, its revision {revision} or {name} is not there (HTTP 404): check them")
    return NetworkError(f"the server answers HTTP {status} for {name} of {repo}: try again later")


def upload_refusal(status: int, headers: Mapping[str, str], repo: str) -> Exception:
    """The exception for an HTTP status that answers an upload: TemporaryError or NetworkError, as `refusal`."""
    reasons = {
        401: f"the Hub does not accept the token (HTTP 401): set HF_TOKEN to one that may write to {repo}",
        403: f"{repo} may not be written with your token (HTTP 403): use another name, or a token that may write",
        409: f"{repo} was changed during the upload (HTTP 409): push again",
        413: f"the Hub has no more room for {repo} (HTTP 413): see your storage there",
    }
    return NetworkError(reasons[status]) if status in reasons else refusal(status, headers, repo, "main", "the upload")


def _retry_after(value: str) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date; None if it holds neither."""
    try:
        if value.isdecimal():
            return float(value[:9])
        date = parsedate_tz(value)  # in UTC if it names no time zone
        return None if date is None else max(0.0, mktime_tz(date) - time())
    except (ValueError, OverflowError):
        return None
