"""Files of torch.save, read without trust: a zip archive with a pickle, and a file for the memory of each tensor.

torch reads them, with `weights_only`, after the archive and the pickle have been found to be as torch.save writes
them: nothing compressed, nothing twice, no more instructions than a state dict needs.
"""

import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2cli.checkpoints.limits import check_bytes, plain_facts
from gpt2cli.checkpoints.pickle_scan import MAX_PICKLE, PickleRefused, scan
from gpt2cli.errors import CheckpointError
from gpt2cli.untrusted import shown_reason

MAGIC = b"PK\x03\x04"
MAX_DIRECTORY = 2 * 2**20
"""Bytes of the archive's list of files that are read; each file takes about 60, and the reader makes 600 of them."""
FACTS = ("model_args", "config", "template", "provenance")
"""What is read of a checkpoint besides its weights."""
_ENTRY = 30  # bytes before a file in the archive, with the lengths of its name and of more that stand there
_END, _END_64, _LOCATOR = 22, 56, 20  # sizes of the records at an archive's end, the last two for large files


def read_pt(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a bare state dict, or of one under a well-known key, and the FACTS beside it.

    Tensors are mapped into memory. Raises CheckpointError for a file that is damaged, holds something else or a pickle
    that runs code, or asks for more memory than it takes itself.
    """
    size = path.stat().st_size
    try:
        scan(_read_pickle(path, size))
    except PickleRefused as error:
        raise CheckpointError(f"{path} {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # zipfile raises many kinds for damaged archives
        raise CheckpointError(f"{path} is damaged ({shown_reason(error)}): copy or save it again") from None
    loaded = _load(path)
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}, not a state dict: save model.state_dict()")
    state, extra = loaded, {}
    for key in ("model", "model_state_dict", "state_dict"):
        if isinstance(loaded.get(key), dict):
            state = loaded[key]
            extra = {name: plain_facts(loaded[name], path) for name in FACTS if name in loaded and name != key}
            break
    tensors = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}
    check_bytes(tensors, size, path)
    return tensors, extra


def _read_pickle(path: Path, size: int) -> bytes:
    """The pickle in the archive. Raises ValueError or BadZipFile for an archive that torch.save did not write.

    That also rules out archives in which this reader and torch's would find different pickles.
    """
    _check_end(path, size)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = {entry.filename.lower() for entry in entries}
        if len(names) < len(entries):
            raise ValueError("a file twice in the archive")
        if any(
            entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries
        ):
            raise ValueError("a compressed archive")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("an archive that claims to hold more than its size")
        pickles = [entry for entry in entries if entry.filename.lower().endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > MAX_PICKLE:
            raise ValueError("an archive without data.pkl, or with a huge one")
    with path.open("rb") as file:  # not by zipfile, which insists on checksums: torch.save can leave them out
        file.seek(pickles[0].header_offset)
        header = file.read(_ENTRY)
        file.seek(_number(header, 26, 2) + _number(header, 28, 2), os.SEEK_CUR)
        return file.read(pickles[0].file_size)


def _check_end(path: Path, size: int) -> None:
    """Raise ValueError unless the list of files is of a bearable length, right before the records of the end."""
    with path.open("rb") as file:
        file.seek(max(size - _END - _LOCATOR - _END_64, 0))
        records = file.read()
    end = records[-_END:]
    if not end.startswith(b"PK\x05\x06") or end[-2:] != bytes(2):
        raise ValueError("no archive, or not a whole one")
    length, start, expected = _number(end, 12, 4), _number(end, 16, 4), size - _END
    if records[-_END - _LOCATOR :].startswith(b"PK\x06\x07"):
        locator = records[-_END - _LOCATOR : -_END]
        if not records.startswith(b"PK\x06\x06") or _number(locator, 8, 8) != size - len(records):
            raise ValueError("not a whole archive")
        length, start, expected = _number(records, 40, 8), _number(records, 48, 8), size - len(records)
    if start + length != expected:
        raise ValueError("an archive with something before or behind it")
    if length > MAX_DIRECTORY:
        raise ValueError("an archive of too many files")


def _number(record: bytes, start: int, length: int) -> int:
    return int.from_bytes(record[start : start + length], "little")


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own plans for the kinds of tensors that it finds
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except MemoryError:
        raise
    except Exception as error:  # torch raises many kinds for damaged contents
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise CheckpointError(
                f"{path} holds a pickle that would run code, refused: save its state dict alone"
            ) from None
        raise CheckpointError(f"{path} is damaged ({shown_reason(error)}): copy or save it again") from None
