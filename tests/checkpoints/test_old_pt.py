"""What torch.save wrote before version 1.6: pickles in a row, and behind them the memory of the tensors."""

import io
import pickle
import pickletools
import struct

import pytest
import torch

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.config import GPTConfig
from gpt2cli.errors import CheckpointError
from tests import models

CONFIG = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=20)


@pytest.fixture(scope="module")
def content():
    """A whole file."""
    file = io.BytesIO()
    torch.save(models.our_checkpoint(models.small_model(CONFIG)), file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def ends(content):
    """Where each of the five pickles ends."""
    file, found = io.BytesIO(content), []
    for _ in range(5):
        for _ in pickletools.genops(file):
            pass
        found.append(file.tell())
    return found


def refused(path, content, why):
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=why) as error:
        load_plain(ckpt=path)
    assert len(str(error.value)) < 300 + len(str(path))


@pytest.mark.parametrize(
    "change",
    [
        lambda names: [],
        lambda names: names[:-1],
        lambda names: names[:1] * len(names),
        lambda names: [*names, "more"],
        lambda names: dict.fromkeys(names, names),
        lambda names: list(range(len(names))),
        lambda names: None,
    ],
)
def test_memory_that_is_not_in_the_file_is_not_left_at_random(content, tmp_path, change):
    *_, start, end = ends(content)
    order = pickle.dumps(change(pickle.loads(content[start:end])), 2)
    refused(tmp_path / "a.pt", content[:start] + order + content[end:], "damaged .the list of the tensors' storages")


def test_memory_in_another_order_is_refused(content, tmp_path):
    *_, start, end = ends(content)
    order = pickle.dumps(pickle.loads(content[start:end])[::-1], 2)
    refused(tmp_path / "a.pt", content[:start] + order + content[end:], "damaged")


@pytest.mark.parametrize("length", [15, 16, 100, 900, -1, -100])
def test_a_file_cut_short_is_refused(content, tmp_path, length):
    refused(tmp_path / "a.pt", content[:length], "damaged")


def test_a_file_with_other_bytes_behind_it_is_refused(content, tmp_path):
    refused(tmp_path / "a.pt", content + b"x", "followed by other bytes")


def test_memory_that_claims_to_be_huge_is_refused_before_it_is_made(content, tmp_path, monkeypatch):
    end = ends(content)[-1]
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("was read"))
    refused(tmp_path / "a.pt", content[:end] + struct.pack("<q", 2**60) + content[end + 8 :], "truncated")
