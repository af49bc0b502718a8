"""The header of a safetensors file is checked as the safetensors library checks it."""

import json
import random
import struct

import numpy as np
import pytest
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from gpt2cli.checkpoints.files import read_safetensors
from gpt2cli.checkpoints.headers import TYPES, check_safetensors
from gpt2cli.errors import CheckpointError


def file_of(header: object, size: int, spaces: int = 0) -> bytes:
    """A file with this header and `size` bytes of data."""
    raw = json.dumps(header).encode() + b" " * spaces
    return struct.pack("<Q", len(raw)) + raw + bytes(range(size))


def entry(dtype="F32", shape=(1,), start=0, end=4):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ({"a": entry(start=4, end=8)}, 8),
        ({"a": entry(), "b": entry(start=8, end=12)}, 12),
        ({"a": entry(shape=(2,), end=8), "b": entry(start=4, end=8)}, 8),
        ({"a": entry(), "b": entry()}, 4),
        ({"a": entry(shape=(2,))}, 4),
        ({"a": entry(shape=(-1,), end=-4)}, 0),
        ({"a": entry(shape=(2**40, 2**40))}, 4),
        ({"a": entry(dtype="F33")}, 4),
        ({"a": entry(dtype=["F32"])}, 4),
        ({"a": entry(shape=(1.0,))}, 4),
        ({"a": entry(end=4.0)}, 4),
        ({"a": entry(shape=(True,))}, 4),
        ({"a": entry() | {"shape": "1"}}, 4),
        ({"a\ud800": entry()}, 4),
        ({"a": entry(), "__metadata__": {"b": "\ud800"}}, 4),
        ({"a": entry(), "__metadata__": {"b": 1}}, 4),
    ],
)
def test_a_header_that_the_library_refuses_is_refused(tmp_path, header, size):
    path = tmp_path / "a.safetensors"
    path.write_bytes(file_of(header, size))
    with pytest.raises(SafetensorError):
        deserialize(path.read_bytes())
    with pytest.raises(CheckpointError, match="damaged"):
        read_safetensors(path)


def test_what_is_accepted_is_what_the_library_reads(tmp_path):
    """Of many headers with a few wrong bytes, most in the numbers."""
    path, choose = tmp_path / "a.safetensors", random.Random(0)
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(4, dtype=np.int8)}
    whole = save(tensors, {"x": "y"})
    length = int.from_bytes(whole[:8], "little")
    accepted = 0
    for _ in range(400):
        changed = bytearray(whole)
        for _ in range(choose.randint(1, 2)):
            changed[choose.randrange(8, 8 + length)] = choose.choice(b"0123456789FI[],ab ")
        path.write_bytes(changed)
        try:
            described, _ = check_safetensors(path)
        except CheckpointError:
            continue
        accepted += 1
        theirs = dict(deserialize(bytes(changed)))
        assert theirs.keys() == described.keys()
        for name, tensor in described.items():
            assert list(tensor.shape) == theirs[name]["shape"]
            assert tensor.type == theirs[name]["dtype"]
            assert changed[tensor.start : tensor.end] == theirs[name]["data"]
    assert accepted > 5


@pytest.mark.parametrize("spaces", range(8))
@pytest.mark.parametrize("name", TYPES)
def test_every_type_is_read_wherever_its_data_begin(tmp_path, name, spaces):
    dtype, size = TYPES[name]
    path = tmp_path / "a.safetensors"
    path.write_bytes(file_of({"a": entry(name, (2, 3), 0, 6 * size)}, 6 * size, spaces))
    array = read_safetensors(path).tensors["a"].read()
    assert array.dtype == np.dtype(dtype)
    assert array.dtype.itemsize == size
    assert array.flags.aligned
    assert array.tobytes() == bytes(range(6 * size))


def test_an_empty_tensor_may_be_anywhere_and_is_never_too_large(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(file_of({"a": entry(shape=(0,), end=0), "b": entry(), "c": entry(shape=(0, 3), start=4)}, 4))
    assert {name: array.shape for name, array in read_safetensors(path).tensors.items()} == {
        "a": (0,),
        "b": (1,),
        "c": (0, 3),
    }
    path.write_bytes(file_of({"a": entry(shape=(0, 2**63 - 1), end=0)}, 0))
    with pytest.raises(CheckpointError, match="damaged"):
        read_safetensors(path)
