"""GGUF from strangers: read where it is GPT-2, refused quickly and in little memory where it is not what it says."""

import os
import random
import resource
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gpt2cli.checkpoints.gguf_format import MAX_HEADER, read_gguf
from gpt2cli.checkpoints.load import load_plain
from gpt2cli.config import GPTConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.export.gguf_file import write_gguf
from gpt2cli.prompts import ALPACA
from tests import models

CONFIG = GPTConfig(n_layer=1, n_head=2, n_embd=32, block_size=16)


@pytest.fixture(scope="module")
def model():
    return models.small_model(CONFIG)


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "whole.gguf"
    write_gguf(path, model.state_dict(), CONFIG, "q8_0", "whole", ALPACA)
    return path


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def field(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def header(fields: list[bytes], tensors: list[bytes], version: int = 3, **counts: int) -> bytes:
    n_tensors, n_fields = counts.get("n_tensors", len(tensors)), counts.get("n_fields", len(fields))
    start = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_fields)
    return start + b"".join(fields) + b"".join(tensors)


def tensor(
    name: bytes, shape: tuple[int, ...], kind: int = 0, offset: int = 0, n_dimensions: int | None = None
) -> bytes:
    dimensions = struct.pack(f"<{len(shape)}Q", *shape)
    return (
        text(name)
        + struct.pack("<I", len(shape) if n_dimensions is None else n_dimensions)
        + dimensions
        + struct.pack("<IQ", kind, offset)
    )


ARCHITECTURE = field(b"general.architecture", 8, text(b"gpt2"))
STRINGS, NUMBERS = 2**63 - 1, struct.pack("<IQ", 4, 2**62)


def test_plain_tensors_are_mapped(model, tmp_path):
    write_gguf(tmp_path / "a.gguf", model.state_dict(), CONFIG, "f16", "a", None)
    tensors, facts = read_gguf(tmp_path / "a.gguf")
    if Path("/proc/self/maps").exists():
        assert f"{tmp_path}/a.gguf" in Path("/proc/self/maps").read_text()
    assert tensors["token_embd.weight"].dtype == np.float16
    assert facts["config"] == {
        "n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 16, "layer_norm_epsilon": 1e-5,
    }  # fmt: skip
    assert facts["template"] is None


@pytest.mark.parametrize("cut", [4, 10, 23, 24, 100, 3_000, 1_000_000, -1, -5_000])
def test_truncated(whole, tmp_path, cut):
    (tmp_path / "a.gguf").write_bytes(whole.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"is truncated: .* expected|bad GGUF header .*where it ends"):
        load_plain(ckpt=tmp_path / "a.gguf")


def test_followed_by_other_bytes(whole, tmp_path):
    (tmp_path / "a.gguf").write_bytes(whole.read_bytes() + bytes(100))
    with pytest.raises(CheckpointError, match="followed by other bytes"):
        load_plain(ckpt=tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header([], [], version=1), "version 1"),
        (header([], [], n_tensors=2**64 - 1), "tensors and"),
        (header([], [], n_fields=2**63), "tensors and"),
        (header([ARCHITECTURE, ARCHITECTURE], []), "a name that comes twice"),
        (header([field(b"a", 8, struct.pack("<Q", 2**64 - 1))], []), "where it ends"),
        (header([field(b"a", 9, struct.pack("<IQ", 8, STRINGS))], []), "bad GGUF header"),
        (header([field(b"a", 9, NUMBERS)], []), "where it ends"),
        (header([field(b"a", 9, struct.pack("<IQ", 9, 1))], []), "bad GGUF header"),  # an array of arrays
        (header([field(b"a", 99, b"")], []), "bad GGUF header"),
        (header([field(b"\xff\xfe", 8, text(b"a"))], []), "bad GGUF header"),
        (header([field(b"general.alignment", 4, struct.pack("<I", 0))], []), "alignment of 0"),
        (header([field(b"general.alignment", 4, struct.pack("<I", 24))], []), "alignment of 24"),
        (header([field(b"general.architecture", 8, text(b"llama\x1b[2J"))], []), "not gpt2"),
        (header([], []), "a model of the kind None"),
        (header([ARCHITECTURE], [tensor(b"a", (2**63, 2**63))]), "is truncated"),
        (header([ARCHITECTURE], [tensor(b"a", (2**40, 2**40, 2**40, 2**40))]), "is truncated"),
        (header([ARCHITECTURE], [tensor(b"a", (0, 4))]), "empty or misplaced"),
        (header([ARCHITECTURE], [tensor(b"a", (), n_dimensions=0)]), "0 dimensions"),
        (header([ARCHITECTURE], [tensor(b"a", (), n_dimensions=2**32 - 1)]), "dimensions"),
        (header([ARCHITECTURE], [tensor(b"a", (8,), offset=7)]), "empty or misplaced"),
        (header([ARCHITECTURE], [tensor(b"a", (8,), offset=2**64 - 32)]), "is truncated"),
        (header([ARCHITECTURE], [tensor(b"a", (8,)), tensor(b"a", (8,))]) + bytes(99), "a name that comes twice"),
        (header([ARCHITECTURE], [tensor(b"a", (256,), kind=12)]) + bytes(999), "ggml's type 12"),
        (header([ARCHITECTURE], [tensor(b"a", (16,), kind=8)]) + bytes(99), "ggml's type 8"),
        (header([ARCHITECTURE], [tensor(b"a", (16,), kind=99)]) + bytes(99), r"ggml's type 99 \(unknown\)"),
    ],
)  # fmt: skip
def test_a_hostile_header(tmp_path, content, message):
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_plain(ckpt=tmp_path / "a.gguf")


def test_tensors_that_overlap_cannot_unpack_to_more_than_the_file(tmp_path):
    many = [tensor(b"t%d" % n, (2**15,), kind=8) for n in range(2000)]
    content = header([ARCHITECTURE], many)
    (tmp_path / "a.gguf").write_bytes(content + bytes(-len(content) % 32) + bytes(2**15 // 32 * 34))
    with pytest.raises(CheckpointError, match="overlap"):
        load_plain(ckpt=tmp_path / "a.gguf")


@pytest.mark.parametrize("kind", ["many fields", "many tensors", "many strings", "one long string"])
def test_the_longest_header_takes_no_time_and_no_memory(tmp_path, kind):
    if kind == "many fields":
        content = header([field(b"%d" % n, 0, b"\0") for n in range(1_000)], [])
    elif kind == "many tensors":
        content = header([ARCHITECTURE], [tensor(b"%d" % n, (1,), offset=2**40) for n in range(19_999)])
    elif kind == "many strings":
        count = MAX_HEADER // 8
        content = header([field(b"a", 9, struct.pack("<IQ", 8, count) + bytes(8 * count))], [])
    else:
        content = header([field(b"a", 8, text(b"x" * MAX_HEADER))], [])
    (tmp_path / "a.gguf").write_bytes(content)
    os.truncate(tmp_path / "a.gguf", 2**36)  # sparse: as if there were 64 GB
    before, start = peak_memory(), time.process_time()
    with pytest.raises(CheckpointError):
        load_plain(ckpt=tmp_path / "a.gguf")
    assert time.process_time() - start < 5  # a twentieth of that, unless the machine is busy
    assert peak_memory() - before < 2**27


def peak_memory() -> int:
    """Bytes that this process ever held in memory."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def test_no_change_of_a_byte_is_a_crash(whole, tmp_path):
    """Every refusal is a CheckpointError; what still loads has the shape that it should."""
    content, choose = whole.read_bytes(), random.Random(0)
    small = content[:1500]
    start = content.find(b"token_embd.weight")
    for _ in range(30):
        at = choose.randrange(len(small)) if choose.random() < 0.5 else choose.randrange(start - 8, start + 900)
        changed = bytearray(content)
        changed[at] = choose.randrange(256)
        (tmp_path / "a.gguf").write_bytes(changed)
        try:
            loaded = load_plain(ckpt=tmp_path / "a.gguf")
        except CheckpointError:
            continue
        assert loaded.config.n_embd == CONFIG.n_embd


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header([field(b"%d" % n, 0, b"\0") for n in range(1_001)], []), "1001 fields"),
        (header([], [tensor(b"x" * 1_000, (1,))]), "a name of 1000 characters"),
        (header([field(b"general.architecture", 8, text(b"x" * 10**6))], []), "not gpt2"),
        (header([ARCHITECTURE], [tensor(b"t" * 400, (256,), kind=12)]) + bytes(999), "ggml's type 12"),
        (header([field(b"general.alignment", 8, text(b"y" * 10**6))], []), "alignment of"),
    ],
)  # fmt: skip
def test_what_a_header_says_is_shown_shortly(tmp_path, content, message):
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        load_plain(ckpt=tmp_path / "a.gguf")
    assert len(str(error.value)) < 1_000


def test_many_blocks_are_refused_before_a_model_is_made(tmp_path):
    names = [b"blk.%d.attn_norm.weight" % n for n in range(10_000)] + [b"token_embd.weight", b"position_embd.weight"]
    shapes = [(1,)] * 10_000 + [(1, 1)] * 2
    content = header(
        [ARCHITECTURE], [tensor(n, s, offset=32 * i) for i, (n, s) in enumerate(zip(names, shapes, strict=True))]
    )
    (tmp_path / "a.gguf").write_bytes(content + bytes(-len(content) % 32) + bytes(32 * len(names)))
    start = time.process_time()
    with pytest.raises(CheckpointError):
        load_plain(ckpt=tmp_path / "a.gguf")
    assert time.process_time() - start < 5
