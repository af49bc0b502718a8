"""What is stored small comes back as it was, nearly or exactly."""

import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gpt2cli import load
from gpt2cli.checkpoints import quantized_file, quantized_weights
from gpt2cli.checkpoints.lazy_arrays import lazy
from gpt2cli.checkpoints.torch_arrays import to_array
from gpt2cli.errors import CheckpointError
from gpt2cli.model.quantization import dequantize_groups, quantize_groups
from tests import models


@pytest.fixture
def weights():
    return models.small_model().state_dict()


@pytest.fixture
def arrays(weights):
    return {name: to_array(tensor) for name, tensor in weights.items()}


def to_floats(small):
    """The weights that a file of these arrays holds."""
    found = quantized_weights.to_floats({name: lazy(array) for name, array in small.items()}, "it")
    values = {name: array.read() for name, array in found.items()}
    for name, array in found.items():
        assert (array.shape, array.dtype) == (values[name].shape, values[name].dtype), name
    return values


def test_every_weight_comes_back_within_half_a_step(arrays):
    back = to_floats(quantized_file.quantize_tensors(arrays))
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        step = np.abs(array).max(axis=-1, keepdims=True) / 127 if array.ndim == 2 else 0
        assert (np.abs(back[name] - array) <= step * 0.5001).all(), name


def test_what_was_in_8_bits_stays_as_it_is(arrays):
    once = to_floats(quantized_file.quantize_tensors(arrays))
    again = to_floats(quantized_file.quantize_tensors(once))
    for name, array in once.items():
        np.testing.assert_allclose(again[name], array, rtol=1e-6)


def test_4_bits_come_back_to_the_bit(arrays):
    small = quantized_file.quantize_tensors(arrays, 4)
    assert quantized_weights.precision({name: lazy(array) for name, array in small.items()}) == "int4"
    assert (small["wpe.weight"] == arrays["wpe.weight"]).all()
    back = to_floats(small)
    assert {name: array.shape for name, array in back.items()} == {n: array.shape for n, array in arrays.items()}
    for name, array in arrays.items():
        if name.startswith("h.") and array.ndim == 2:
            assert small[name].dtype == np.uint8
            assert (back[name] == dequantize_groups(*quantize_groups(array))).all(), name
    again = to_floats(quantized_file.quantize_tensors(back, 4))
    for name, array in back.items():
        np.testing.assert_allclose(again[name], array, rtol=1e-6)


def test_a_width_without_groups_takes_8_bits():
    weight = np.random.default_rng(0).standard_normal((4, 50), np.float32)
    assert quantized_file.quantize_tensors({"h.0.mlp.c_fc.weight": weight}, 4)["h.0.mlp.c_fc.weight"].dtype == np.int8


def test_equal_rows_are_found_and_shared(arrays):
    assert quantized_file.share_equal_rows(arrays) is arrays
    table = arrays["wte.weight"].copy()
    table[100:40000] = table[100]
    small = quantized_file.share_equal_rows(arrays | {"wte.weight": table})
    assert len(small["wte.weight"]) == len(table) - 39899
    assert (to_floats(small)["wte.weight"] == table).all()


def test_the_error_is_that_of_what_comes_back(arrays):
    small = quantized_file.quantize_tensors(arrays, 4)
    back = to_floats(small)
    names = [name.removesuffix(".scale") for name in small if name.endswith(".scale")]
    off, whole = (np.linalg.norm(np.concatenate([array.ravel() for array in found])) for found in (
        [back[name] - arrays[name] for name in names], [arrays[name] for name in names]
    ))  # fmt: skip
    assert quantized_file.check_rounding(arrays, small).relative == pytest.approx(float(off / whole), rel=1e-4)


def test_a_row_of_zeros_stays_zero():
    assert not to_floats(quantized_file.quantize_tensors({"w": np.zeros((3, 4), np.float32)}))["w"].any()


def test_tokens_that_occur_keep_their_rows_and_the_others_share_the_mean(arrays):
    table = arrays["wte.weight"]
    occurs = np.zeros(len(table), bool)
    occurs[[0, 5, 50256]] = True
    small = quantized_file.share_rows(arrays, occurs)
    assert small["wte.weight"].shape[0] == 4
    back = to_floats(small)["wte.weight"]
    assert (back[occurs] == table[occurs]).all()
    mean = np.broadcast_to(table[~occurs].mean(axis=0, dtype=np.float64), (len(table) - 3, table.shape[1]))
    np.testing.assert_allclose(back[~occurs], mean, rtol=1e-6, atol=1e-9)


def test_a_file_of_8_bits_is_a_checkpoint_like_any_other(weights, tmp_path):
    model, path = models.small_model(), tmp_path / "small.safetensors"
    occurs = torch.ones(len(weights["wte.weight"]), dtype=torch.bool)
    save_file(models.quantized_state(weights, 8, occurs.index_fill(0, torch.tensor([7]), False)), path)
    (tmp_path / "config.json").write_text('{"n_embd": 48, "n_head": 3}')
    loaded = load(ckpt=path, device="cpu")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(torch.as_tensor(loaded(ids)), model(ids), atol=0.15, rtol=0.05)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"h.0.mlp.c_fc.weight.scale": None}, "without a scale"),
        ({"h.0.mlp.c_fc.weight.scale": np.ones(2, np.float32)}, "without a scale"),
        ({"wte.index": np.array([60000], np.uint16)}, "not there"),
    ],
)
def test_damage_is_named(arrays, change, word):
    small = quantized_file.quantize_tensors(arrays) | change
    with pytest.raises(CheckpointError, match=word):
        to_floats({name: array for name, array in small.items() if array is not None})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("scale", torch.ones(192, 0, dtype=torch.float16)),
        ("scale", torch.ones(192, 5, dtype=torch.float16)),
        ("scale", torch.ones(191, 3, dtype=torch.float16)),
        ("scale", torch.ones(192, dtype=torch.float16)),
        ("scale", None),
        ("numbers", torch.zeros(192, 8, 3, dtype=torch.uint8)),
    ],
)
def test_a_damaged_file_of_4_bits_is_refused(weights, tmp_path, name, change):
    matrix = "h.0.mlp.c_fc.weight"
    small = models.quantized_state(weights, 4)
    small[matrix + quantized_weights.SCALE if name == "scale" else matrix] = change
    path = tmp_path / "small.safetensors"
    save_file({name: tensor for name, tensor in small.items() if tensor is not None}, path)
    (tmp_path / "config.json").write_text('{"n_embd": 48, "n_head": 3}')
    with pytest.raises(CheckpointError, match=r"mlp\.c_fc\.weight"):
        load(ckpt=path, device="cpu")


def load_small(tmp_path, tensors):
    save_file(tensors, tmp_path / "small.safetensors")
    (tmp_path / "config.json").write_text('{"n_embd": 48, "n_head": 3}')
    return load(ckpt=tmp_path / "small.safetensors", device="cpu")


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.bool, torch.complex64, torch.int64, torch.float64, torch.bfloat16]
)
def test_scales_of_other_types_are_refused_before_they_are_computed_with(weights, tmp_path, bits, dtype):
    small, name = models.quantized_state(weights, bits), "h.0.attn.c_attn.weight.scale"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CheckpointError, match=r"c_attn\.weight"):
            load_small(tmp_path, small | {name: small[name].to(dtype)})


@pytest.mark.parametrize(
    "index",
    [
        *(torch.zeros(50257).to(dtype) for dtype in (torch.float8_e4m3fn, torch.complex64, torch.bool, torch.float32)),
        torch.full((50257,), float("nan")),
        torch.zeros(50257, dtype=torch.int64),
        torch.zeros(2**16 + 1, dtype=torch.uint16),
        torch.zeros(50257, 1, dtype=torch.uint16),
        torch.zeros(0, dtype=torch.uint16),
        torch.full((50257,), 50257, dtype=torch.int32).to(torch.uint16),
    ],
)
def test_an_index_of_another_type_or_length_is_refused(weights, tmp_path, index):
    with pytest.raises(CheckpointError, match=r"wte\.index"):
        load_small(tmp_path, weights | {"wte.index": index})


@pytest.mark.parametrize("missing", ["wpe.weight", "h.0.attn.c_attn.weight", None])
def test_an_index_multiplies_no_rows_that_are_wider_than_the_other_weights(weights, tmp_path, missing):
    """From 100 kB it would make 3.6 GB."""
    tensors = {name: tensor for name, tensor in weights.items() if name != missing}
    wide = {"wte.weight": torch.zeros(1, 30_000), "wte.index": torch.zeros(30_000, dtype=torch.uint16)}
    with pytest.raises(CheckpointError, match="not as wide as the other weights"):
        load_small(tmp_path, tensors | wide)


def test_rows_are_shared_in_files_of_4_bits_too(weights, tmp_path):
    occurs = torch.ones(len(weights["wte.weight"]), dtype=torch.bool).index_fill(0, torch.tensor([7, 9]), False)
    assert load_small(tmp_path, models.quantized_state(weights, 4, occurs)).config.vocab_size == 50257
