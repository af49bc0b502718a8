"""Weights that a type cannot hold are refused before anything is written, in every format."""

import ml_dtypes
import numpy as np
import pytest
import torch

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.quantized_file import quantize_model
from gpt2cli.checkpoints.rounding import LARGEST_ERROR, check_rounding, compare
from gpt2cli.checkpoints.save import save_checkpoint, save_tensors
from gpt2cli.config import GPTConfig
from gpt2cli.errors import CheckpointError, DivergedError
from gpt2cli.export.request import Request
from gpt2cli.export.write import export
from tests import models

CONFIG = GPTConfig(n_layer=1, n_head=1, n_embd=64, block_size=8)
OUT = {"hf": "folder", "gguf": "a.gguf", "nanogpt": "a.pt", "original": "b.safetensors", "gpt2cli": "c.pt"}
LAYER = "h.0.mlp.c_fc.weight"


@pytest.fixture(scope="module")
def model():
    return models.small_model(CONFIG)


def with_row(model, value, path):
    state = dict(model.state_dict())
    state[LAYER] = state[LAYER].clone()
    state[LAYER][3] = value
    save_tensors(state, model.config, path)
    return path


def content(path):
    return {file.name: file.read_bytes() for file in (sorted(path.iterdir()) if path.is_dir() else [path])}


@pytest.mark.parametrize(
    ("format", "dtype", "value"),
    [(name, "f16", 1e6) for name in OUT] + [("gguf", "q8_0", 1e30), ("gguf", "q8_0", -1e30)],
)
def test_an_export_that_would_be_infinite_leaves_the_old_one(model, tmp_path, format, dtype, value):
    good, bad = tmp_path / "good.pt", with_row(model, value, tmp_path / "bad.pt")
    save_checkpoint(model, good)
    out = tmp_path / OUT[format]
    export(Request(ModelSpec(ckpt=good), format, out, dtype))
    before, there = content(out), sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=r"weight has values up to 1e\+.* cannot hold"):
        export(Request(ModelSpec(ckpt=bad), format, out, dtype, force=True))
    assert content(out) == before
    assert sorted(tmp_path.iterdir()) == there


@pytest.mark.parametrize(("bits", "value"), [(4, 1e30), (4, 6e5), (4, 1e6)])
def test_a_quantized_file_whose_scales_would_be_cut_is_not_written(model, tmp_path, bits, value):
    bad, out = with_row(model, value, tmp_path / "bad.pt"), tmp_path / "q.safetensors"
    with pytest.raises(CheckpointError, match=rf"{LAYER} has values up to .* which int4 cannot hold"):
        quantize_model(ModelSpec(ckpt=bad), bits, out)
    assert not out.exists()


def test_what_eight_bits_hold_is_written_with_a_finite_error(model, tmp_path):
    big, out = with_row(model, 1e30, tmp_path / "big.pt"), tmp_path / "q.safetensors"
    assert 0 <= quantize_model(ModelSpec(ckpt=big), 8, out).error < 0.01
    assert float(load_plain(ckpt=out).state_dict()[LAYER].max()) == pytest.approx(1e30, rel=0.01)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_ordinary_rounding_is_let_through(model, tmp_path, dtype):
    plain = tmp_path / "plain.pt"
    save_checkpoint(model, plain)
    for format, name in OUT.items():
        export(Request(ModelSpec(ckpt=plain), format, tmp_path / name, dtype))
        assert (tmp_path / name).exists()


def test_a_tensor_that_would_vanish_is_refused():
    small = np.full((4, 4), 1e-9, np.float32)
    with pytest.raises(CheckpointError, match=r"a would change by 100% in f16, which is more than rounding"):
        check_rounding("a", small, small.astype(np.float16), "f16")
    assert check_rounding("a", np.zeros(4), np.zeros(4, np.float16), "f16").relative == 0


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e30])
def test_errors_are_those_of_numpy_at_any_size(scale):
    exact = np.random.default_rng(0).standard_normal((1000, 1100), np.float32) * np.float32(scale)  # several chunks
    rounded = exact * np.float32(1.001)
    a, b = exact.astype(np.float64), rounded.astype(np.float64)
    assert compare(exact, rounded).relative == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a))


def test_the_bounds_are_above_what_rounding_does():
    weight = np.random.default_rng(0).standard_normal((256, 256), np.float32)
    for stored, dtype in (("f16", np.float16), ("bf16", ml_dtypes.bfloat16)):
        assert compare(weight, weight.astype(dtype)).relative < LARGEST_ERROR[stored] / 8


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_a_trained_model_that_is_not_finite_is_not_written(model, tmp_path, name):
    state = dict(model.state_dict())
    state["ln_f.bias"] = torch.full((64,), torch.inf)
    with pytest.raises(DivergedError, match=r"ln_f\.bias has values that are not finite"):
        save_tensors(state, model.config, tmp_path / name)
    assert not list(tmp_path.iterdir())
