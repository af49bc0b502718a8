"""Training records by their source: two well-known data sets, an address, or a path. Downloads are kept."""

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gpt2cli import paths
from gpt2cli.atomic import sync_directory
from gpt2cli.data.records import read_records
from gpt2cli.data.values import FORMATS, SUFFIXES
from gpt2cli.errors import DataError, NetworkError, UsageError
from gpt2cli.hub import addresses, models
from gpt2cli.hub.addresses import without_query
from gpt2cli.hub.model_cache import lock_file
from gpt2cli.hub.resumable_download import LastingError
from gpt2cli.progress import Note, Progress, ignore
from gpt2cli.untrusted import is_file, missing

CLEANED_REPO, CLEANED_FILE = "yahma/alpaca-cleaned", "alpaca_data_cleaned.json"
ORIGINAL = "https://raw.githubusercontent.com/tatsu-lab/stanford_alpaca/main/alpaca_data.json"


def fetch_source(
    source: str, offline: bool = False, progress: Progress = ignore, columns: Mapping[str, str] | None = None
) -> Path:
    """The file of a source: `cleaned`, `original`, an https address, or a path. A download is kept, and used again.

    cleaned   https://huggingface.co/datasets/yahma/alpaca-cleaned, checked against the Hub's digest
    original  https://github.com/tatsu-lab/stanford_alpaca

    A download from an address must hold records in these `columns`, which are as for `read_records`.

    Raises UsageError for anything else, NetworkError if the download fails, and DataError if an address leads to
    something that is not a file of records.
    """
    if source == "cleaned":
        download = partial(models.download_from_dataset, CLEANED_REPO, CLEANED_FILE)
        return _kept(source, f"{CLEANED_REPO.replace('/', '--')}--{CLEANED_FILE}", download, offline, progress)
    address = ORIGINAL if source == "original" else source
    if addresses.is_address(address):
        return _kept(source, _file_name(address), partial(_download_records, address, columns), offline, progress)
    path = paths.expand(source)
    if not is_file(path):
        raise UsageError(f"{source} is {missing(path)}: give cleaned, original, an https address, or a {FORMATS}")
    return path


def _kept(source: str, name: str, download: Callable[..., None], offline: bool, progress: Progress) -> Path:
    """The file of this name in the directory of downloads. If it is not there, one process at a time downloads it."""
    file = paths.datasets() / "downloads" / name
    if file.is_file():
        progress(Note(f"using {file}, downloaded before: delete it to fetch {source} again"))
        return file
    if offline or models.is_offline():
        why = "it is not on disk and the network is off (--offline or HF_HUB_OFFLINE)"
        raise NetworkError(f"cannot use {source}: {why}: go online once, or give a file of your own as --source")
    waiting = Note(f"another process is downloading {without_query(source)}: waiting for it")
    with lock_file(file.with_name(f".{name}.lock"), lambda: progress(waiting)):
        if not file.is_file():
            part = file.with_name(f".part-{name}")
            try:
                download(part, progress=progress)
            except LastingError as error:
                what = f"Alpaca ({source})" if source in ("cleaned", "original") else without_query(source)
                raise NetworkError(f"cannot fetch {what}: {error}; a file of your own needs no network") from None
            part.replace(file)
            sync_directory(file.parent)
    return file


def _file_name(address: str) -> str:
    """A file name for an address: a digest of the whole address, and its last part in plain characters."""
    addresses.check_address(address)
    name = Path(unquote(urlsplit(address).path)).name
    if not name.endswith(SUFFIXES):
        raise UsageError(f"{without_query(address)} does not name a file of records: give the address of a {FORMATS}")
    return f"{hashlib.sha256(address.encode()).hexdigest()[:12]}-{re.sub(r'[^A-Za-z0-9._-]', '_', name)[-80:]}"


def _download_records(address: str, columns: Mapping[str, str] | None, part: Path, progress: Progress) -> None:
    """Download an address to `part`, and check that it holds records.

    Deletes `part` if it does not. Then raises DataError, or UsageError if it has other columns.
    """
    addresses.download(address, part, progress)
    try:
        read_records(part, skip_bad=True, columns=columns)
    except UsageError as error:
        part.unlink()
        raise UsageError(str(error).replace(str(part), without_query(address))) from None
    except DataError as error:
        part.unlink()
        reason = str(error).replace(str(part), "the download")
        raise DataError(f"{without_query(address)} is not a file of records: {reason}") from None
