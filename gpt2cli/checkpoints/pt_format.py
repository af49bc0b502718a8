"""Files of torch.save, read without trust: a zip archive with a pickle, and a file for the storage of each tensor.

First the archive and the pickle are checked to be as torch.save writes them: nothing compressed, nothing twice, and
only the instructions that a state dict needs. Then torch reads them, with `weights_only`.
"""

import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2cli.checkpoints.limits import MAX_REPEATED, plain_facts
from gpt2cli.checkpoints.mapped_files import Array
from gpt2cli.checkpoints.pickle_scan import MAX_PICKLE, STORAGES, PickleRefused, scan
from gpt2cli.checkpoints.saved_dicts import find_state_dict
from gpt2cli.checkpoints.torch_arrays import to_array
from gpt2cli.errors import CheckpointError
from gpt2cli.untrusted import shown_name, shown_reason

MAX_DIRECTORY = 2 * 2**20
"""Bytes of the archive's list of files that are read. Each file takes about 60, and 600 in memory."""
_OLD_PICKLES = 5
"""The pickles in such a file: that number, the version, the system, the saved object, the order of the storages."""
_ENTRY = 30  # bytes of the header before a file in the archive; its name and extra fields follow
_END, _END_64, _LOCATOR = 22, 56, 20  # sizes of the records at an archive's end, the last two for large files


def read_pt(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """The tensors of a model, and the facts beside them, as `find_state_dict` finds them.

    Tensors are mapped into memory. Raises CheckpointError for a file that is damaged, holds something else or a pickle
    that runs code, or asks for more memory than it takes itself.
    """
    with _damage_of(path):
        scan(_read_pickle(path, path.stat().st_size))
    return _load(path, mmap=True)


def read_old_pt(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """As `read_pt`, for files of torch.save before version 1.6: pickles one after the other, then the storages."""
    with path.open("rb") as file:
        start = file.read(MAX_PICKLE)
    with _damage_of(path):
        scanned = [scan(start)]
        while len(scanned) < _OLD_PICKLES:
            scanned.append(scan(start, scanned[-1].end))
        *_, saved, order = scanned
        _check_storages(path, saved.storages, order.value, order.end)
    return _load(path, mmap=False)


@contextmanager
def _damage_of(path: Path) -> Iterator[None]:
    """Turn every error in reading `path` into a CheckpointError: zipfile and torch raise many kinds.

    Warnings are ignored: torch warns of deprecated kinds of tensors.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except PickleRefused as error:
        raise CheckpointError(f"{path} {error}") from None
    except MemoryError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path} is damaged ({shown_reason(error)}): copy or save it again") from None


def _check_storages(path: Path, storages: dict[str, str], order: Any, end: int) -> None:
    """Raise ValueError unless the storages of the tensors follow from `end` to the end of the file, each once.

    torch would leave missing storages uninitialized. `order` must list their names. 8 bytes before each storage hold
    the count of its numbers.
    """
    names = [name for name in order if type(name) is str] if type(order) is list else []
    if len(names) != len(storages) or set(names) != storages.keys() or len(names) != len(order):
        raise ValueError("the list of the tensors' storages does not name each of them once")
    size = path.stat().st_size
    with path.open("rb") as file:
        for name in names:
            file.seek(end)
            end += 8 + _number(file.read(8), 0, 8) * STORAGES[storages[name]]
            if end > size:
                raise ValueError(f"it is truncated: at least {end} bytes expected, {size} found")
    if end != size:
        raise ValueError(f"it is followed by other bytes: {end} expected, {size} found")


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
        if any(each.compress_type != zipfile.ZIP_STORED or each.file_size != each.compress_size for each in entries):
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
    """Raise ValueError unless the list of files is short enough, and right before the records at the end."""
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


def _load(path: Path, mmap: bool) -> tuple[dict[str, Array], dict[str, Any]]:
    """The model's tensors, read by torch, and the facts beside them."""
    with _damage_of(path):
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except Exception as error:
            if "weights_only" in str(error) or "Unsupported" in str(error):
                raise PickleRefused("holds a pickle that would run code, refused: save its state dict alone") from None
            raise
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}, not a state dict: save model.state_dict()")
    try:
        tensors, extra = find_state_dict(loaded)
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from None
    _check_bytes(tensors, path.stat().st_size, path)
    arrays = {name: _to_array(name, tensor, path) for name, tensor in tensors.items()}
    return arrays, {name: plain_facts(value, path) for name, value in extra.items()}


def _check_bytes(tensors: dict[str, Tensor], size: int, where: object) -> None:
    """Raise CheckpointError if tensors that share memory are more than MAX_REPEATED times the file of `size` bytes.

    Some sharing is normal: an output head may be the token embedding under another name, and a training program may
    save a model both as a whole and as a part of another.
    """
    total = 0
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta:
            continue  # `_to_array` refuses it
        total += tensor.nbytes
        if tensor.nbytes > tensor.untyped_storage().nbytes() or total > MAX_REPEATED * size:
            raise CheckpointError(
                f"{where}: {shown_name(name)} repeats numbers that are stored once, so that the tensors are larger "
                "than the file: save contiguous tensors"
            )


def _to_array(name: str, tensor: Tensor, where: object) -> Array:
    """The same memory as an array. Raises CheckpointError for a tensor that NumPy has no counterpart for."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
        raise CheckpointError(
            f"{where}: {shown_name(name)} is no plain tensor (sparse, quantized or empty): save it as dense fp32"
        )
    try:
        return to_array(tensor)
    except TypeError:
        raise CheckpointError(
            f"{where}: {shown_name(name)} is {tensor.dtype}, not floating point: save it as fp32"
        ) from None
