"""Damaged, hostile and mistaken files: refused in one line, in bounded time."""

import dataclasses
import json
import math
import os
import pickle
import random
import re
import struct
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gpt2cli import load
from gpt2cli.checkpoints.files import read_checkpoint, read_safetensors
from gpt2cli.checkpoints.limits import MAX_SHARDS, MAX_TENSORS
from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.model_shape import parameter_shapes
from gpt2cli.config import GPTConfig
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.model.gpt import GPT
from tests import models
from tests.checkpoints.refusing import refused

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=37, vocab_size=100)


@pytest.fixture(scope="module")
def model():
    return models.small_model(CONFIG)


@pytest.fixture
def directory(model, tmp_path):
    return models.save_hub_directory(model, tmp_path)


def header_and_rest(raw: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def with_header(header: bytes, rest: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + rest


@pytest.mark.parametrize(
    ("content", "guess"),
    [
        (b"<!DOCTYPE html><html>Sign in</html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "a Git LFS pointer"),
        (b"PK\x03\x04" + bytes(600), "a zip or PyTorch file"),
        (b"", "an empty file"),
        (b"GGUF" + bytes(600), "GGUF"),
        (pickle.dumps([1, 2]), "a pickle"),
        (b"just words, many of them", "text"),
    ],
)
def test_other_things_in_place_of_weights_are_named(directory, content, guess):
    file = directory / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"is not safetensors; looks like {guess}"):
        load_plain(str(directory))


@pytest.mark.parametrize(("change", "state"), [(-1, "truncated"), (-4000, "truncated"), (3, "followed by other bytes")])
def test_wrong_length_tells_expected_and_actual(directory, change, state):
    file = directory / "model.safetensors"
    raw = file.read_bytes()
    file.write_bytes(raw[:change] if change < 0 else raw + bytes(change))
    with pytest.raises(CheckpointError, match=f"{state}: {len(raw)} bytes expected, {len(raw) + change} found"):
        load_plain(str(directory))


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack("<Q", 2**62) + b"{" + bytes(600),
        with_header(b"{%s,%s}" % (2 * (b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}',)), bytes(4)),
        with_header(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
        with_header(b'{"a":{"dtype":"F32","shape":[1]}}', bytes(4)),
        with_header(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}', bytes(4)),
        with_header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,4]}}', bytes(4)),
        with_header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,1e400]}}', bytes(4)),
        with_header(b'{"__metadata__":3,"a":7}', bytes(4)),
        with_header(b"{" + b" " * 17_000_000 + b"}"),
    ],
    ids=["huge length", "duplicate", "deep", "no offsets", "shape", "negative", "infinite", "no objects", "long"],
)
def test_hostile_headers_are_refused_quickly(tmp_path, raw):
    file = tmp_path / "model.safetensors"
    file.write_bytes(raw)
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match="damaged"):
        read_safetensors(file)
    assert time.perf_counter() - start < 1


def test_mutated_headers_never_end_in_a_traceback(directory):
    file = directory / "model.safetensors"
    raw, choose = file.read_bytes(), random.Random(0)
    length = int.from_bytes(raw[:8], "little")
    refused = 0
    for _ in range(300):
        mutated = bytearray(raw)
        for _ in range(choose.randint(1, 4)):
            mutated[choose.randrange(8 + length)] = choose.randrange(256)
        file.write_bytes(mutated)
        try:
            load_plain(str(directory))
        except CheckpointError as error:
            refused += 1
            assert str(file) in str(error) or str(directory) in str(error) or "no GPT-2" in str(error)
    assert refused > 250


def change_state(directory, change):
    state = models.hub_state(models.small_model(CONFIG))
    change(state)
    save_file(state, directory / "model.safetensors")


def test_missing_extra_and_misshapen_tensors_are_named_up_to_five(directory):
    def spoil(state):
        for name in ("ln_f.bias", "h.1.ln_2.weight", "h.0.attn.c_attn.bias"):
            del state[name]
        state["h.0.mlp.c_fc.bias"] = torch.zeros(7)
        for n in range(3):
            state[f"surprise.{n}"] = torch.zeros(1)

    change_state(directory, spoil)
    with pytest.raises(CheckpointError) as error:
        load_plain(str(directory))
    message = str(error.value)
    assert "ln_f.bias is missing" in message
    assert "h.1.ln_2.weight is missing" in message
    assert message.count(" is ") == 5
    assert "and 2 more" in message


@pytest.mark.parametrize(
    "name", ["ln_f.bias", "h.1.attn.c_attn.bias", "h.1.mlp.c_proj.weight", "wpe.weight", "h.0.ln_1.weight"]
)
def test_each_missing_tensor_is_noticed(directory, name):
    change_state(directory, lambda state: state.pop(name))
    with pytest.raises(CheckpointError, match=name.replace("h.0.ln_1.weight", "n_layer")):
        load_plain(str(directory))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_named(directory, value):
    change_state(directory, lambda state: state["h.1.mlp.c_fc.weight"].view(-1)[77:78].fill_(value))
    with pytest.raises(CheckpointError, match=r"h\.1\.mlp\.c_fc\.weight has values that are not finite"):
        load_plain(str(directory))


def test_weights_beyond_what_fp32_holds_are_named(directory):
    def spoil(state):
        state["ln_f.bias"] = torch.full((48,), 1e300, dtype=torch.float64)

    change_state(directory, spoil)
    with pytest.raises(CheckpointError, match=r"ln_f\.bias has values that are not finite"):
        load_plain(str(directory))


def test_large_finite_weights_whose_sum_overflows_are_accepted(directory):
    change_state(directory, lambda state: state["wte.weight"].fill_(3e38))
    assert load_plain(str(directory)).wte.weight.max().item() == pytest.approx(3e38)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("n_head", 5, "n_head 5"),
        ("n_head", "three", "n_head"),
        ("n_head", None, "n_head"),
        ("n_layer", 3, "n_layer is 3"),
        ("n_embd", 64, "n_embd is 64"),
        ("vocab_size", 50257, "vocab_size is 50257"),
        ("layer_norm_epsilon", "tiny", "layer_norm_epsilon"),
        ("activation_function", "relu", "activation_function is 'relu'"),
        ("model_type", "llama", "model_type is 'llama'"),
        ("scale_attn_by_inverse_layer_idx", True, "scale_attn_by_inverse_layer_idx"),
    ],
)
def test_a_bad_config_names_its_field(directory, field, value, says):
    config = models.hub_config(CONFIG) | {field: value}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=says):
        load_plain(str(directory))


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, "nonsense", " " * (2**24 + 1)], ids=len)
def test_a_config_that_is_no_json_object_is_refused(directory, content):
    (directory / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_plain(str(directory))


def test_weights_in_a_pickle_only_are_refused(directory):
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickle only, refused"):
        load_plain(str(directory))


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path):
    torch.save({"model": Bomb(tmp_path / "executed")}, tmp_path / "bomb.pt")
    with pytest.raises(CheckpointError, match="would run code, refused"):
        load_plain(ckpt=tmp_path / "bomb.pt")
    assert not (tmp_path / "executed").exists()


def test_a_truncated_or_rewritten_pt_is_refused(model, tmp_path):
    torch.save(models.our_checkpoint(model), tmp_path / "a.pt")
    raw = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "short.pt").write_bytes(raw[: len(raw) // 2])
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    for name in ("short.pt", "other.pt"):
        with pytest.raises(CheckpointError, match="damaged"):
            load_plain(ckpt=tmp_path / name)


@pytest.mark.parametrize("saved", [[1, 2], torch.zeros(3), {"wte.weight": torch.zeros(3)}, {}])
def test_a_pt_that_holds_no_state_dict_is_refused(tmp_path, saved):
    torch.save(saved, tmp_path / "a.pt")
    with pytest.raises(CheckpointError):
        load_plain(ckpt=tmp_path / "a.pt")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of memory maps")
def test_reading_is_by_memory_map(model, tmp_path):
    torch.save(models.our_checkpoint(model), tmp_path / "a.pt")
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    for file in ("a.pt", "a.safetensors"):
        contents = read_checkpoint(tmp_path / file)
        assert f"{tmp_path}/{file}" in Path("/proc/self/maps").read_text()
        assert contents.tensors["wte.weight"].shape == (100, 48)


def described(shapes: dict[str, list[int]], dtype: str = "F32", size: int = 4) -> bytes:
    """A safetensors file of zeros."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * size
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    return with_header(json.dumps(entries).encode(), bytes(end))


TINY_SHAPES = {"wte.weight": [4, 1], "wpe.weight": [4, 1], "h.0.attn.c_attn.weight": [3, 1]}


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        (TINY_SHAPES | {f"h.{n}.ln_1.weight": [1] for n in range(4_000)}, "4000 blocks"),
        (TINY_SHAPES | {"h.999999.ln_1.weight": [1]}, "does not fit|n_layer|has no biases"),
        (TINY_SHAPES | {f"h.{n}.ln_1.weight": [0] for n in range(4_000)}, "impossible shape"),
        (TINY_SHAPES | {"h.0.ln_1.weight": [0, 2**60]}, "impossible shape"),
        ({f"h.{n}.ln_1.weight": [0] for n in range(MAX_TENSORS + 1)}, f"{MAX_TENSORS + 1} tensors"),
        (TINY_SHAPES | {"x" * 3_000_000: [1]}, "name of 3000000 characters"),
        (TINY_SHAPES | {"h.0.ln_1.weight": [1] * 9}, "impossible shape"),
    ],
    ids=["blocks", "far block", "empty tensors", "empty and huge", "tensors", "long name", "dimensions"],
)  # fmt: skip
def test_a_header_that_asks_for_more_than_the_file_holds_is_refused_quickly(tmp_path, shapes, match):
    path = tmp_path / "a.safetensors"
    path.write_bytes(described(shapes))
    (tmp_path / "config.json").write_text('{"n_embd": 1, "n_head": 1}')
    refused(path, match)


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.bool),
        *(torch.int8, torch.uint8, torch.uint16, torch.int64),
    ],
)
@pytest.mark.parametrize("name", ["h.0.ln_1.weight", "h.0.attn.c_attn.weight", "wte.weight", "lm_head.weight"])
def test_weights_that_are_no_floats_are_refused(directory, name, dtype):
    change_state(directory, lambda state: state.update({name: state.get(name, torch.zeros(100, 48)).to(dtype)}))
    with pytest.raises(CheckpointError, match=re.escape(name)):
        load_plain(str(directory))


@pytest.mark.parametrize(
    "value",
    ["A" * 3_000_000, [[[]]], {"a": 1}, 10**100, None, True, float("nan")],
    ids=lambda value: type(value).__name__,
)
def test_a_config_value_is_shown_shortly(directory, value):
    for field in ("n_layer", "n_head", "layer_norm_epsilon", "model_type", "scale_attn_weights"):
        if (field, value) in (("model_type", None), ("scale_attn_weights", None), ("scale_attn_weights", True)):
            continue
        (directory / "config.json").write_text(json.dumps(models.hub_config(CONFIG) | {field: value}))
        with pytest.raises(CheckpointError, match=field) as error:
            load_plain(str(directory))
        assert len(str(error.value)) < 1_000


def test_only_files_of_known_size_are_opened(tmp_path, directory):
    os.mkfifo(tmp_path / "pipe.pt")
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path in (tmp_path / "pipe.pt", tmp_path / "pipe.safetensors", Path("/dev/zero")):
        refused(path, "is not an ordinary file")
        with pytest.raises(CheckpointError, match="is not an ordinary file"):
            read_safetensors(path)
    for name in ("model.safetensors", "config.json"):
        content = (directory / name).read_bytes()
        (directory / name).unlink()
        os.mkfifo(directory / name)
        with pytest.raises(CheckpointError):
            load_plain(str(directory))
        (directory / name).unlink()
        (directory / name).write_bytes(content)


@pytest.mark.parametrize("name", ["a" * 300 + ".pt", "a/" * 3000 + "b.pt", "a\0b.pt", "a\ud800.pt"])
def test_a_name_that_no_file_can_have_is_refused_in_one_line(name):
    for arguments in ({"ckpt": name}, {"ckpt": Path(name)}, {"model": name}, {"model": "/" + name}):
        with pytest.raises(UsageError) as error:
            load(**arguments, offline=True)
        assert len(str(error.value)) < 500
        assert "\n" not in str(error.value)


def test_a_file_whose_name_is_not_utf8_is_named(model, tmp_path):
    path = tmp_path / "a\udcff.pt"
    torch.save(models.our_checkpoint(model), tmp_path / "a.pt")
    (tmp_path / "a.pt").rename(path)
    with pytest.raises(CheckpointError, match="not UTF-8: rename it"):
        load_plain(ckpt=path)


def write_index(directory, shards) -> None:
    (directory / "model.safetensors").rename(directory / "a.safetensors")
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def test_an_index_may_name_the_same_file_for_all_tensors(directory):
    write_index(directory, {f"tensor {n}": "a.safetensors" for n in range(20_000)})
    assert load_plain(str(directory)).config.n_embd == 48


@pytest.mark.parametrize(
    ("shards", "match"),
    [
        ({str(n): f"{n}.safetensors" for n in range(MAX_SHARDS + 1)}, "names 1001 files"),
        ({"a": "a.safetensors", "b": "b.safetensors"}, "tensors that another file holds too"),
        ({"a": "x" * 5_000}, "is missing"),
        ({"a": "a\0.safetensors"}, "is missing"),
        ({"a": "\ud800.safetensors"}, "is missing"),
        ({"a": "pipe.safetensors"}, "is missing"),
        ({"a": "../a.safetensors"}, "same directory"),
        ({"a": ["a.safetensors"]}, "same directory"),
    ],
)
def test_an_index_of_odd_files_is_refused(directory, shards, match):
    write_index(directory, shards)
    (directory / "b.safetensors").hardlink_to(directory / "a.safetensors")
    os.mkfifo(directory / "pipe.safetensors")
    with pytest.raises(CheckpointError, match=match) as error:
        load_plain(str(directory))
    assert len(str(error.value)) < 1_000


def test_shapes_are_worked_out_as_the_model_has_them():
    for tied in (True, False):
        config = dataclasses.replace(CONFIG, tied=tied)
        parameters = GPT(config).named_parameters()
        assert parameter_shapes(config) == {name: tuple(parameter.shape) for name, parameter in parameters}
