"""The kinds of data that `--data` accepts, and the checks of a path before the data is read. They need no torch."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from gpt2cli import paths
from gpt2cli.config import LESSONS
from gpt2cli.data.gzip_files import ending
from gpt2cli.data.values import SUFFIXES, is_data_file
from gpt2cli.errors import DataError, UsageError
from gpt2cli.hub.names import DATASET_FORM, DATASET_PREFIX, parse_dataset_file
from gpt2cli.suggestions import advise, did_you_mean_file
from gpt2cli.untrusted import is_directory, is_file, missing

TEXT_SUFFIX = ".txt"
FILE = "data.safetensors"
"""The file of a prepared dataset."""
ACCEPTED = (
    "give .csv, .tsv, .json, .jsonl (each also as .gz), .txt, a folder of .txt, a directory of prepare-alpaca, "
    f"{DATASET_FORM}, an https address, or {LESSONS} (bundled)"
)


def data_path(data: str) -> Path:
    """The path of data. LESSONS means the records that come with the package, unless a file has that name.

    Raises UsageError for an empty name, which would mean the working directory.
    """
    if not data.strip():
        raise UsageError(f"--data is empty: {ACCEPTED}")
    path = paths.expand(data)
    return paths.asset("lessons.jsonl") if data == LESSONS and not path.exists() else path


def check_kind(path: Path) -> None:
    """Raise UsageError for a missing path or a file of an unknown format, DataError for a folder without data."""
    if is_directory(path):
        if not is_prepared(path) and not any(map(is_text, entries(path))):
            raise DataError(f"{path} holds neither a prepared dataset nor .txt files: {_other_data_in(path)}")
        return
    if not is_file(path):
        guess = did_you_mean_file(path, (*SUFFIXES, TEXT_SUFFIX), [LESSONS])
        raise UsageError(f"{path} is {missing(path)}: {advise(guess, ACCEPTED)}")
    if not is_data_file(path) and path.suffix.lower() != TEXT_SUFFIX:
        raise UsageError(f"{path} is not a known data format: {ACCEPTED}")


def _other_data_in(folder: Path) -> str:
    """The advice about a folder without texts: to give a file of records in it, if there is one."""
    files = [path for path in entries(folder) if is_data_file(path) and not path.name.startswith(".")]
    if not files:
        return ACCEPTED
    return f"give a file of records itself, such as {min(files)}"


def text_files(path: Path) -> dict[str, Path]:
    """The text file at a path by its name, or the `.txt` files in a folder and its subfolders by `name_in`, sorted.

    The suffix may be in upper case. Hidden files and folders are left out, such as `._*`, where macOS stores metadata
    on other file systems. Symbolic links to folders are not followed, because they can lead around in a circle.
    """
    if not path.is_dir():
        return {path.name: path}
    found = sorted(filter(is_text, entries(path)), key=lambda file: file.relative_to(path).parts)
    return {name_in(path, file): file for file in found}


def name_in(folder: Path, path: Path) -> str:
    """The path of a file relative to the folder, with `/` on every system."""
    return path.relative_to(folder).as_posix()


def entries(folder: Path) -> Iterator[Path]:
    """Everything in a folder and its visible subfolders, except these. A hidden folder is one entry. Raises OSError."""
    for place, folders, files in os.walk(folder, onerror=_raise):
        closed = [name for name in folders if name.startswith(".") or Path(place, name).is_symlink()]
        folders[:] = [name for name in folders if name not in closed]
        yield from (Path(place, name) for name in (*closed, *files))


def _raise(error: OSError) -> NoReturn:
    raise error


def is_text(path: Path) -> bool:
    """Whether a path is a visible text file."""
    return not path.name.startswith(".") and path.suffix.lower() == TEXT_SUFFIX and is_file(path)


def default_directory(source: str) -> Path:
    """The default directory for a source: `alpaca-cleaned`, `alpaca-original`, or the name of the source's file.

    For a file of a dataset on the Hub, the name of the dataset comes first.
    """
    file = Path(urlsplit(source).path)
    name = f"alpaca-{source}" if source in ("cleaned", "original") else file.name[: -len(ending(file)) or None]
    if source.startswith(DATASET_PREFIX):  # names of files repeat, such as train.jsonl
        name = f"{parse_dataset_file(source).repo.rpartition('/')[2]}-{name}"
    return paths.datasets() / (re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "alpaca")


def is_prepared(directory: Path) -> bool:
    """Whether the directory holds a prepared dataset."""
    return is_file(directory / FILE)
