"""The prepared dataset on disk: equal to what was in memory, refused when damaged, whole after a kill."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gpt2cli.config import DataConfig
from gpt2cli.data import prepared
from gpt2cli.data.dataset import TokenDataset, empty, mask_from
from gpt2cli.data.kinds import FILE, default_directory
from gpt2cli.data.open_data import load_records
from gpt2cli.data.prepared import fingerprint, read_prepared, write_prepared
from gpt2cli.data.splits import Splits
from gpt2cli.data.tokenized_records import tokenize_records
from gpt2cli.errors import DataError, ResourceError
from gpt2cli.prompts import ALPACA
from tests.data.records import RECORDS, as_read, conversation, many, write_json
from tests.runner import PATIENCE

PARTS = ("train", "val", "test")
NEW_COUNTS = ("turns", "shortened", "unanswered")


@pytest.fixture
def splits(tmp_path: Path) -> Splits:
    return load_records(write_json(tmp_path / "a.json", [*RECORDS, *many(34)]), 128, "response", DataConfig())


def sequences(data: TokenDataset) -> list[tuple[list[int], list[bool]]]:
    return [(ids.tolist(), is_target.tolist()) for ids, is_target in data]


def test_prepared_equals_in_memory(tmp_path: Path, splits: Splits) -> None:
    assert write_prepared(splits, tmp_path / "deep" / "out") == tmp_path / "deep" / "out" / FILE
    assert [path.name for path in (tmp_path / "deep" / "out").iterdir()] == [FILE]
    read = read_prepared(tmp_path / "deep" / "out", with_records=True)
    assert (read.info, read.template, read.records) == (splits.info, splits.template, splits.records)
    assert read_prepared(tmp_path / "deep" / "out").records == {}
    for name, part in splits.by_name().items():
        there = read.by_name()[name]
        assert there.fingerprint() == part.fingerprint()
        assert sequences(there) == sequences(part)


def test_conversations_come_back_with_their_targets_and_texts(tmp_path: Path) -> None:
    records = [
        conversation("Hi.", "Hello!", "Who are you?", "A fox.", system="Be brief."),
        conversation("Hi.\n", "Γειά 👋", system="Be brief."),
    ]
    read = tokenize_records(as_read(*records), Path("a.json"), 256, "response", DataConfig())
    info = {"kind": "alpaca", "source": "a", "max_length": 256, "loss_on": "response", "seed": 0}
    info |= {"counts": asdict(read.counts), "turns": read.turns}
    all_of_them = {"train": read.records, "val": [], "test": []}
    splits = Splits(read.dataset, empty(), empty(), read.template, info, records=all_of_them)
    write_prepared(splits, tmp_path / "out")
    found = read_prepared(tmp_path / "out", with_records=True)
    assert sequences(found.train) == sequences(read.dataset)
    assert (found.template, found.info["turns"]) == (ALPACA.with_system("Be brief."), 2)
    assert found.records == all_of_them and found.records["train"] == records


def test_counts_of_earlier_versions_are_accepted(tmp_path: Path, splits: Splits) -> None:
    older = {name: count for name, count in splits.info["counts"].items() if name not in NEW_COUNTS}
    info = {name: value for name, value in splits.info.items() if name != "turns"}
    write_prepared(replace(splits, info=info | {"counts": older}), tmp_path / "out")
    assert read_prepared(tmp_path / "out").info["counts"] == older


def test_empty_splits_and_no_template(tmp_path: Path, splits: Splits) -> None:
    bare = replace(splits, val=empty(), test=empty(), template=None)
    write_prepared(bare, tmp_path / "out")
    read = read_prepared(tmp_path / "out")
    assert (len(read.val), len(read.test), read.template) == (0, 0, None)
    assert fingerprint(read) == fingerprint(bare) == read.info["fingerprint"]


def test_damaged_at_any_byte(tmp_path: Path, splits: Splits) -> None:
    file = write_prepared(splits, tmp_path / "out")
    whole = file.read_bytes()
    draw = random.Random(0)
    for _ in range(300):
        at = draw.randrange(len(whole))
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1 :])
        try:
            read = read_prepared(tmp_path / "out", with_records=True)
        except DataError as error:
            assert "\n" not in str(error)
            assert str(file) in str(error)
        else:  # a blank that fills up the header, for another one
            assert (fingerprint(read), read.info) == (splits.info["fingerprint"], splits.info)
            assert read.records == splits.records
    for content in (whole[: len(whole) // 2], whole + b"x", b"", b"<html>", b"version https://git-lfs.github.com"):
        file.write_bytes(content)
        with pytest.raises(DataError, match="prepare it again"):
            read_prepared(tmp_path / "out")


def test_a_dataset_of_an_earlier_version_has_no_records(tmp_path: Path, splits: Splits) -> None:
    write_prepared(replace(splits, records={}), tmp_path / "out")
    read = read_prepared(tmp_path / "out", with_records=True)
    assert (fingerprint(read), read.info, read.records) == (splits.info["fingerprint"], splits.info, {})


WRONG_PARTS = (
    b'"system": 1',
    b'"system": "\\udfff"',
    b'"more": ""',
    b'"earlier": 1',
    b'"earlier": [""]',
    b'"earlier": [{}]',
)
"""Members of a record of a conversation that are not those that are written."""


@pytest.mark.parametrize(
    "lines",
    [
        *(b"", b"[]\n", b"{}\n", b"1\n", b"[" * 9999, b'{"instruction": "a", "input": "", "output": 1}\n'),
        *(b'{"instruction": "a", "input": ""}\n', b'{"instruction": "\\ud800", "input": "", "output": "a"}\n'),
        *(b'{"instruction": "a", "input": "", "output": "b", %b}\n' % part for part in WRONG_PARTS),
    ],
)
def test_records_that_are_not_those_of_the_sequences_are_refused(tmp_path: Path, splits: Splits, lines: bytes) -> None:
    file = write_prepared(splits, tmp_path / "out")
    tensors = load_file(file)
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors["test.records"] = torch.tensor(list(lines * len(splits.test)), dtype=torch.uint8)
    for digest in (
        metadata["records_sha256"],
        prepared._digest_of_records({n: tensors[f"{n}.records"] for n in PARTS}),
    ):
        save_file(tensors, file, metadata=metadata | {"records_sha256": digest})
        assert read_prepared(tmp_path / "out").records == {}  # training does not need them
        with pytest.raises(DataError, match="prepare it again"):
            read_prepared(tmp_path / "out", with_records=True)
    del tensors["test.records"]
    save_file(tensors, file, metadata=metadata)
    with pytest.raises(DataError, match="prepare it again"):
        read_prepared(tmp_path / "out", with_records=True)


def test_a_dataset_that_lost_its_records_is_damaged(tmp_path: Path, splits: Splits) -> None:
    file = write_prepared(splits, tmp_path / "out")
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    kept = {name: tensor for name, tensor in load_file(file).items() if not name.endswith(".records")}
    save_file(kept, file, metadata=metadata)
    with pytest.raises(DataError, match="is damaged"):
        read_prepared(tmp_path / "out", with_records=True)
    text = metadata["gpt2cli"].replace('"version": 2', '"version": 3')
    save_file(kept, file, metadata=metadata | {"gpt2cli": text})
    with pytest.raises(DataError, match="damaged, or prepared by another version"):
        read_prepared(tmp_path / "out")


def _no_train(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    for name, part in (("tokens", 0), ("loss_from", 0), ("is_target", 0), ("offsets", 1)):
        if f"train.{name}" in tensors:
            tensors[f"train.{name}"] = tensors[f"train.{name}"][:part].clone()


def _outside(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    tensors["val.offsets"][1] = 10**9


def _no_target(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    if "val.loss_from" in tensors:
        tensors["val.loss_from"][0] = 10_000
    else:
        tensors["val.is_target"][: int(tensors["val.offsets"][1])] = False


def _first_token(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    if "val.loss_from" in tensors:
        tensors["val.loss_from"][0] = 0
    else:
        tensors["val.is_target"][0] = True


def _other_targets(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    name = "val.loss_from" if "val.loss_from" in tensors else "val.is_target"
    tensors[name] = torch.cat([tensors[name], tensors[name][-1:]])


def _other_type(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    name = "val.loss_from" if "val.loss_from" in tensors else "val.is_target"
    tensors[name] = tensors[name].to(torch.uint8)


def _no_token(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    tensors["test.tokens"][0] = 60_000


def _float(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    tensors["test.tokens"] = tensors["test.tokens"].to(torch.float32)


def _missing(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    del tensors["test.tokens"]


def _version(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    described["version"] = 99


def _template(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    described["template"] = ["{instruction}"]


def _wrapping(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    n, whole = len(tensors["test.tokens"]), 2**62  # whose differences are all positive, in 64 bits
    tensors["test.offsets"] = torch.tensor([0, whole, 2 * whole - 1, -2 * whole + 9, -2, n])
    if "test.loss_from" in tensors:
        tensors["test.loss_from"] = torch.ones(5, dtype=torch.int32)


def _loss_on(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    described["loss_on"] = ["all"]


def _window(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    described["max_length"] = "128"


def _nan(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    described["more"] = float("nan")


def _counts(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    described["counts"] = described["counts"] | {"kept": "x" * 10}


def _new_counts(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    described["counts"] = described["counts"] | {"shortened": None}


def _turns(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    described["turns"] = "2"


def _fingerprint(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    described["fingerprint"] = "0" * 64


def _source(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    del described["source"]


def _nothing(tensors: dict[str, Any], described: dict[str, Any]) -> None:
    pass


def as_version_1(tensors: dict[str, Any], splits: Splits) -> None:
    """Store the first targets, as the format's first version did, in place of the masks."""
    for name, part in splits.by_name().items():
        del tensors[f"{name}.is_target"]
        tensors[f"{name}.loss_from"] = part.first_targets.to(torch.int32)


def digest_of(tensors: dict[str, Any]) -> str:
    """The fingerprint of these tensors. Of some that make no sense, there is none: they get another text."""
    parts = []
    for name in PARTS:
        tokens, offsets, targets, first = (
            tensors.get(f"{name}.{member}", torch.zeros(0))
            for member in ("tokens", "offsets", "is_target", "loss_from")
        )
        try:
            mask = mask_from(offsets, first) if f"{name}.loss_from" in tensors else targets
            parts.append(TokenDataset(tokens, offsets, mask))
            parts[-1].fingerprint()
        except (IndexError, RuntimeError):
            return "none"
    return fingerprint(Splits(parts[0], parts[1], parts[2], None))


def write_changed(file: Path, tensors: dict[str, Any], described: dict[str, Any]) -> None:
    """Write a file with a right digest of its contents, whatever they are."""
    text = json.dumps(described)
    digest = hashlib.sha256((text + digest_of(tensors)).encode()).hexdigest()
    save_file(tensors, file, metadata={"gpt2cli": text, "sha256": digest})


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "change",
    [
        *(_nothing, _no_train, _outside, _no_target, _no_token, _float, _missing, _version, _template),
        *(_wrapping, _loss_on, _window, _nan, _counts, _fingerprint, _source),
        *(_first_token, _other_targets, _other_type, _new_counts, _turns),
    ],
)
def test_a_file_with_other_contents_is_refused(
    tmp_path: Path, splits: Splits, version: int, change: Callable[[dict[str, Any], dict[str, Any]], None]
) -> None:
    file = write_prepared(splits, tmp_path / "out")
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items() if not name.endswith(".records")}
    if version == 1:
        as_version_1(tensors, splits)
    described = {"version": version, "template": splits.template and splits.template.to_dict(), **splits.info}
    change(tensors, described)
    if change is not _fingerprint:
        described["fingerprint"] = digest_of(tensors)
    write_changed(file, tensors, described)
    with nullcontext() if change is _nothing else pytest.raises(DataError):
        read = read_prepared(tmp_path / "out")
        for name, part in splits.by_name().items():
            assert sequences(read.by_name()[name]) == sequences(part)
        assert (fingerprint(read), read.template) == (fingerprint(splits), splits.template)


def test_a_mask_of_bytes_that_are_no_booleans_is_refused(tmp_path: Path, splits: Splits) -> None:
    file = write_prepared(splits, tmp_path / "out")
    tensors = load_file(file)
    tensors["val.is_target"].view(torch.uint8)[1] = 2
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    save_file(tensors, file, metadata=metadata)
    with pytest.raises(DataError):
        read_prepared(tmp_path / "out")


# writes a dataset, and is killed at the n-th fsync or rename
KILLED = """
import os, signal, sys
from dataclasses import asdict, replace
from pathlib import Path
from gpt2cli.data.prepared import read_prepared, write_prepared
left = int(sys.argv[1])
def counted(act):
    def acting(*args):
        global left
        left -= 1
        if left < 0: os.kill(os.getpid(), signal.SIGKILL)
        return act(*args)
    return acting
os.fsync, Path.replace = counted(os.fsync), counted(Path.replace)
splits = read_prepared(Path(sys.argv[2]), with_records=True)
records = splits.records | {"val": [replace(record, input="new") for record in splits.records["val"]]}
write_prepared(replace(splits, info=splits.info | {"source": "new"}, records=records), Path(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs kill -9")
def test_killed_in_mid_write(tmp_path: Path, splits: Splits) -> None:
    sources = []
    replaced = splits.records | {"val": [replace(record, input="new") for record in splits.records["val"]]}
    for step in range(4):
        write_prepared(splits, tmp_path / "out")
        command = [sys.executable, "-c", KILLED, str(step), str(tmp_path / "out")]
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE)
        assert done.returncode == (-signal.SIGKILL if step < 3 else 0)
        read = read_prepared(tmp_path / "out", with_records=True)
        sources.append(read.info["source"])
        assert read.records == (splits.records if step < 2 else replaced)
    old = splits.info["source"]
    assert sources == [old, old, "new", "new"]


@pytest.mark.skipif(os.name != "posix", reason="needs permissions")
def test_what_cannot_be_written_names_the_file(tmp_path: Path, splits: Splits) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ResourceError, match=r"cannot write .*file/out/data.safetensors \(Not a directory\)"):
        write_prepared(splits, tmp_path / "file" / "out")


def test_where_a_dataset_goes(home: Path) -> None:
    sources = ["cleaned", "original", "../a b.json", "https://x.org/t/r%20.jsonl?key=1", ".json", "a.csv.gz"]
    sources += ["hf:owner/quiz/train.jsonl", "hf:owner/quiz@v1/data/train.csv.gz"]
    names = ["alpaca-cleaned", "alpaca-original", "a_b", "r_20", "json", "a", "quiz-train", "quiz-train"]
    assert [default_directory(source) for source in sources] == [home / "datasets" / name for name in names]
