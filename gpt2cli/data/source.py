"""Data by its name: well-known data sets, files of datasets on the Hub, addresses, and paths. Downloads are kept."""

import hashlib
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gpt2cli import paths
from gpt2cli.atomic import sync_directory
from gpt2cli.data.kinds import TEXT_SUFFIX, check_kind, data_path, entries, is_prepared, is_text
from gpt2cli.data.records import check_suffix, read_records
from gpt2cli.data.text_records import is_plain_text, read_text_records
from gpt2cli.data.utf8 import read_utf8
from gpt2cli.data.values import FORMATS, SUFFIXES
from gpt2cli.errors import DataError, NetworkError, UsageError
from gpt2cli.hub import addresses, models
from gpt2cli.hub.addresses import without_query
from gpt2cli.hub.environment import is_offline
from gpt2cli.hub.model_cache import lock_file
from gpt2cli.hub.names import DATASET_FORM, DATASET_PREFIX, parse_dataset_file
from gpt2cli.hub.resumable_download import LastingError
from gpt2cli.progress import Note, Progress, ignore
from gpt2cli.suggestions import advise, did_you_mean
from gpt2cli.untrusted import is_directory, is_file, missing

SOURCES = {
    "cleaned": f"{DATASET_PREFIX}yahma/alpaca-cleaned/alpaca_data_cleaned.json",
    "original": "https://raw.githubusercontent.com/tatsu-lab/stanford_alpaca/main/alpaca_data.json",
}
"""The names of well-known data sets, and where they are."""
_KEPT = {SOURCES["cleaned"]: "yahma--alpaca-cleaned--alpaca_data_cleaned.json"}
"""The names of downloads that earlier versions chose in another way."""
_PAGES = re.compile(r"https://huggingface\.co/(datasets/.+/blob/.+)")


def is_remote(name: str) -> bool:
    """Whether a name means a file of a dataset on the Hub, or an address, and not a path."""
    return name.startswith(DATASET_PREFIX) or addresses.is_address(name)


def check_data(data: str) -> None:
    """Raise the errors of `--data` that need no network: see `check_kind`. Nothing is downloaded.

    An address must not have a query: checkpoints and reports contain it, and it may hold a key.
    """
    if not is_remote(data):
        check_kind(data_path(data))
    elif "?" in data:
        raise UsageError(f"{without_query(data)} is given with a query, which may hold a key: download it yourself")
    else:
        _check_remote(data, (*SUFFIXES, TEXT_SUFFIX), f"{TEXT_SUFFIX}, {FORMATS}")


def fetch_data(
    data: str, offline: bool = False, progress: Progress = ignore, columns: Mapping[str, str] | None = None
) -> Path:
    """The path of `--data`. A file that is not on this machine is downloaded, and kept: see `fetch_source`."""
    check_data(data)
    return _kept(data, data, columns, offline, progress) if is_remote(data) else data_path(data)


def check_source(source: str) -> None:
    """Raise UsageError for a source that is none of those of `fetch_source`. Nothing is downloaded."""
    if source in SOURCES:
        return
    if is_remote(source):
        _check_remote(source, SUFFIXES, FORMATS)
        return
    path = paths.expand(source)
    if is_directory(path) and is_prepared(path):
        raise UsageError(f"{source} is prepared already: use gpt2 finetune --data {shlex.quote(source)}")
    if (is_directory(path) and any(map(is_text, entries(path)))) or is_text(path):
        raise _refused_text(source)
    if not is_file(path):
        kinds = f"give cleaned, original, {DATASET_FORM}, an https address, or a {FORMATS}"
        raise UsageError(f"{source} is {missing(path)}: {advise(did_you_mean(source, SOURCES), kinds)}")
    check_suffix(path)


def fetch_source(
    source: str, offline: bool = False, progress: Progress = ignore, columns: Mapping[str, str] | None = None
) -> Path:
    """The file of a source: a name in SOURCES or DATASET_FORM, an https address, or a path.

    A download is kept, and used again. One from the Hub is checked against the Hub's digest, and one from an address
    must hold records in these `columns`, which are as for `read_records`.

    Raises UsageError for anything else and for plain text, NetworkError if the download fails, and DataError if an
    address leads to something that is not a file of records.
    """
    check_source(source)
    name = SOURCES.get(source, source)
    path = _kept(source, name, columns, offline, progress) if is_remote(name) else paths.expand(source)
    if is_plain_text(path, columns):
        raise _refused_text(source)
    return path


def _refused_text(source: str) -> UsageError:
    way = f"use gpt2 finetune --data {shlex.quote(without_query(source))}"
    return UsageError(f"{without_query(source)} holds plain text, which needs no preparation: {way}")


def _check_remote(name: str, endings: tuple[str, ...], formats: str) -> None:
    """Raise UsageError for a malformed name or address, and for one with another ending."""
    if page := _PAGES.match(name):  # the page of a file, not the file
        name = DATASET_PREFIX + page[1]
    if name.startswith(DATASET_PREFIX):
        file = parse_dataset_file(name).name
    else:
        addresses.check_address(name)
        file = urlsplit(name).path
    if not file.lower().endswith(endings):
        raise UsageError(f"{without_query(name)} does not name a file of data: give the name of a {formats}")


def _kept(source: str, name: str, columns: Mapping[str, str] | None, offline: bool, progress: Progress) -> Path:
    """The kept download of a remote name. If it is not there, one process at a time downloads it.

    Messages call it `source`, without a query.
    """
    shown = without_query(source)
    file = paths.datasets() / "downloads" / _file_name(name)
    if file.is_file():
        progress(Note(f"using {file}, downloaded before: delete it to fetch {shown} again"))
        return file
    if offline or is_offline():
        why = "it is not on disk and the network is off (--offline or HF_HUB_OFFLINE)"
        raise NetworkError(f"cannot use {shown}: {why}: go online once, or give a file of your own")
    waiting = Note(f"another process is downloading {shown}: waiting for it")
    with lock_file(file.with_name(f".{file.name}.lock"), lambda: progress(waiting)):
        if not file.is_file():
            part = file.with_name(f".part-{file.name}")
            try:
                _download(name, columns, part, progress)
            except LastingError as error:
                what = f"Alpaca ({source})" if source in SOURCES else shown
                raise NetworkError(f"cannot fetch {what}: {error}; a file of your own needs no network") from None
            part.replace(file)
            sync_directory(file.parent)
    return file


def _file_name(name: str) -> str:
    """A file name for a remote name: a digest of the whole name, and its last part in plain characters."""
    last = re.sub(r"[^A-Za-z0-9._-]", "_", Path(unquote(urlsplit(name).path)).name)[-80:]
    return _KEPT.get(name, f"{hashlib.sha256(name.encode()).hexdigest()[:12]}-{last}")


def _download(name: str, columns: Mapping[str, str] | None, part: Path, progress: Progress) -> None:
    """Download a remote name to `part`. Deletes `part` if an address leads to something that is not data.

    Then raises DataError, or UsageError if it has other columns.
    """
    if name.startswith(DATASET_PREFIX):
        models.download_from_dataset(parse_dataset_file(name), part, progress=progress)
        return
    addresses.download(name, part, progress)
    try:
        _check_content(part, columns)
    except UsageError as error:
        part.unlink()
        raise UsageError(str(error).replace(str(part), without_query(name))) from None
    except DataError as error:
        part.unlink()
        reason = str(error).replace(str(part), "the download")
        raise DataError(f"{without_query(name)} is not a file of data: {reason}") from None


def _check_content(path: Path, columns: Mapping[str, str] | None) -> None:
    """Raise DataError or UsageError for a file that holds no text, or no records in these columns."""
    if path.suffix.lower() == TEXT_SUFFIX:
        read_utf8(path)
    elif is_plain_text(path, columns):
        read_text_records(path, skip_bad=True, columns=columns)
    else:
        read_records(path, skip_bad=True, columns=columns)
