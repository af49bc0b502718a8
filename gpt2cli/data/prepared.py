"""A prepared dataset on disk: a directory with one file, so that a crash never leaves half of a dataset.

`data.safetensors` holds `train.tokens train.offsets train.is_target val.tokens ...`, as in `TokenDataset`, and
`train.records val.records test.records`, (bytes,) uint8: the records as lines of JSON, in the order of the sequences.
Its metadata holds, under `gpt2cli`, a JSON object with version, template, and all of `Splits.info`; under `sha256` a
digest of that object and the sequences; and under `records_sha256` one of the records.

Format version 1 has `train.loss_from`, (n,) int32, in place of `train.is_target`: the index of the first target of each
sequence, whose targets go to its end. It may lack the records: then it can be trained on, but not evaluated on.
"""

import hashlib
import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2cli.atomic import replacing
from gpt2cli.checkpoints.files import read_safetensors
from gpt2cli.checkpoints.save import write_tensors
from gpt2cli.checkpoints.torch_arrays import to_tensors
from gpt2cli.config import VOCAB_SIZE
from gpt2cli.data.dataset import TokenDataset, mask_from
from gpt2cli.data.kinds import FILE
from gpt2cli.data.records import Record
from gpt2cli.data.splits import Splits
from gpt2cli.data.tokenized_records import Counts
from gpt2cli.errors import CheckpointError, DataError, ResourceError
from gpt2cli.exchanges import Exchange
from gpt2cli.prompts import PromptTemplate
from gpt2cli.untrusted import is_encodable, parse_json

VERSION = 2
AGAIN = "prepare it again with `gpt2 prepare-alpaca --force`"
_DTYPES = {"tokens": torch.uint16, "offsets": torch.int64, "is_target": torch.bool}
_DTYPES_1 = {"tokens": torch.uint16, "offsets": torch.int64, "loss_from": torch.int32}
"""Those of format version 1."""
_TEXTS = ("instruction", "input", "output")
_INFO = {"kind": str, "source": str, "max_length": int, "loss_on": str, "seed": int, "fingerprint": str}
"""The members that `Splits.info` always has, and their types."""


def fingerprint(splits: Splits) -> str:
    """sha256, in hex, of the sequences in the three splits."""
    return hashlib.sha256("".join(part.fingerprint() for part in splits.by_name().values()).encode()).hexdigest()


def write_prepared(splits: Splits, directory: Path) -> Path:
    """Write the dataset, and return its file. An old dataset is replaced; a crash leaves the old or the new one.

    Raises ResourceError if it cannot be written.
    """
    tensors = {
        f"{name}.{member}": getattr(part, member).contiguous()
        for name, part in splits.by_name().items()
        for member in _DTYPES
    }
    template = splits.template.to_dict() if splits.template else None
    of_all = fingerprint(splits)
    text = json.dumps({"version": VERSION, "template": template, **splits.info, "fingerprint": of_all})
    metadata = {"gpt2cli": text, "sha256": _digest(text, of_all)}
    if splits.records:
        records = {name: _lines(splits.records[name]) for name in splits.by_name()}
        tensors |= {f"{name}.records": lines for name, lines in records.items()}
        metadata["records_sha256"] = _digest_of_records(records)
    file = directory / FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            write_tensors(temporary, tensors, metadata)
    except OSError as error:
        reason = error.strerror or error
        raise ResourceError(f"cannot write {file} ({reason}): free some space, or write elsewhere") from None
    return file


def read_prepared(directory: Path, with_records: bool = False) -> Splits:
    """Open a prepared dataset by memory map.

    The records are read and checked only `with_records`. They are empty if the file has none.

    The file is untrusted: all its sizes, types and offsets are checked. Raises DataError for a file that is damaged, of
    another format version, or not a prepared dataset.
    """
    path = directory / FILE
    try:
        contents = read_safetensors(path)
        tensors = to_tensors(contents.tensors)
        described: dict[str, Any] = parse_json(contents.extra["gpt2cli"])
        version, stored = described.pop("version"), described.pop("template")
        if version not in (1, VERSION):
            raise DataError("damaged, or prepared by another version of gpt2cli")
        template = None if stored is None else PromptTemplate.from_dict(stored)
        train, val, test = (_part(tensors, name, version) for name in ("train", "val", "test"))
        splits = Splits(train, val, test, template, described)
        found = fingerprint(splits)
        if contents.extra["sha256"] != _digest(contents.extra["gpt2cli"], found) or not len(splits.train):
            raise ValueError
        _check_info(splits.info, found)
        has_records = "records_sha256" in contents.extra or any(name.endswith(".records") for name in tensors)
        if with_records and has_records:
            splits = replace(splits, records=_read_records(splits, tensors, contents.extra["records_sha256"]))
    except CheckpointError as error:
        raise DataError(f"{str(error).removesuffix(': fetch it again')}: {AGAIN}") from None
    except DataError as error:
        raise DataError(f"{path}: {error}: {AGAIN}") from None
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise DataError(f"{path} is damaged, or not a prepared dataset: {AGAIN}") from None
    return splits


def _digest(description: str, fingerprint: str) -> str:
    """sha256, in hex, of the description and of the sequences, whose fingerprint this is."""
    return hashlib.sha256((description + fingerprint).encode()).hexdigest()


def _check_info(info: dict[str, Any], fingerprint: str) -> None:
    """Raise KeyError, TypeError or ValueError unless `info` has the form that `load_data` guarantees."""
    if any(type(info[name]) is not kind for name, kind in _INFO.items()) or info["loss_on"] not in ("response", "all"):
        raise ValueError
    counts = info.get("counts", {})
    older = {member.name: 0 for member in fields(Counts) if member.default == 0}  # earlier versions did not count these
    if counts and any(type((older | counts)[member.name]) is not int for member in fields(Counts)):
        raise ValueError
    if type(info.get("turns", 1)) is not int:
        raise ValueError
    if info["max_length"] < 1 or info["fingerprint"] != fingerprint:
        raise ValueError
    json.dumps(info, allow_nan=False)


def _part(tensors: dict[str, Tensor], name: str, version: int) -> TokenDataset:
    """One split. Raises KeyError or ValueError unless its offsets, tokens and targets are within their ranges."""
    dtypes = _DTYPES if version == VERSION else _DTYPES_1
    tokens, offsets, targets = members = [tensors[f"{name}.{member}"] for member in dtypes]
    if any(member.dtype != dtype or member.ndim != 1 for member, dtype in zip(members, dtypes.values(), strict=True)):
        raise ValueError
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(tokens):
        raise ValueError
    if offsets.min() < 0 or offsets.max() > len(tokens):  # otherwise the lengths below could overflow
        raise ValueError
    if (offsets.diff() < 2).any() or (len(tokens) and tokens.to(torch.int32).max() >= VOCAB_SIZE):
        raise ValueError
    is_target = _mask_of_version_1(offsets, targets) if version == 1 else targets
    if len(is_target) != len(tokens) or (is_target.view(torch.uint8) > 1).any() or is_target[offsets[:-1]].any():
        raise ValueError
    part = TokenDataset(tokens, offsets, is_target)
    if (part.target_counts < 1).any():
        raise ValueError
    return part


def _mask_of_version_1(offsets: Tensor, loss_from: Tensor) -> Tensor:
    """(N,) bool. Raises ValueError unless `loss_from` leaves at least one target, and one other token, in each."""
    if len(loss_from) != len(offsets) - 1 or (loss_from < 1).any() or (loss_from >= offsets.diff()).any():
        raise ValueError
    return mask_from(offsets, loss_from)


def _lines(records: list[Record]) -> Tensor:
    """The records as JSON, one a line, (bytes,) uint8. Only those of conversations have `earlier` and `system`."""
    values = ({name: value for name, value in asdict(record).items() if value or name in _TEXTS} for record in records)
    lines = bytearray("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode())
    return torch.frombuffer(lines, dtype=torch.uint8) if lines else torch.empty(0, dtype=torch.uint8)


def _digest_of_records(records: dict[str, Tensor]) -> str:
    """sha256, in hex, of the lines of all splits."""
    digest = hashlib.sha256()
    for lines in records.values():
        digest.update(len(lines).to_bytes(8, "little"))
        digest.update(lines.numpy().data)
    return digest.hexdigest()


def _read_records(splits: Splits, tensors: dict[str, Tensor], digest: str) -> dict[str, list[Record]]:
    """The records of each split. Raises KeyError, TypeError or ValueError if they are not those of the sequences."""
    stored = {name: tensors[f"{name}.records"] for name in splits.by_name()}
    if any(lines.dtype != torch.uint8 or lines.ndim != 1 for lines in stored.values()):
        raise ValueError
    if _digest_of_records(stored) != digest:
        raise ValueError
    records = {name: [*map(_record, lines.numpy().tobytes().splitlines())] for name, lines in stored.items()}
    if any(len(records[name]) != len(part) for name, part in splits.by_name().items()):
        raise ValueError
    return records


def _record(line: bytes) -> Record:
    """The inverse of a line of `_lines`. Raises AttributeError, TypeError or ValueError for any other."""
    value = parse_json(line)
    earlier, system = value.pop("earlier", []), value.pop("system", "")
    if not isinstance(system, str) or not is_encodable(system):
        raise ValueError
    last, *before = (_exchange(each) for each in (value, *earlier))
    return Record(last.instruction, last.input, last.output, tuple(before), system)


def _exchange(value: dict[str, Any]) -> Exchange:
    """An exchange of a stored record. Raises AttributeError, TypeError or ValueError if it is none."""
    if value.keys() != set(_TEXTS):
        raise ValueError
    if any(not isinstance(text, str) or not is_encodable(text) for text in value.values()):
        raise ValueError
    return Exchange(**value)
