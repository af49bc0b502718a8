"""What is stored small comes back as it was, nearly or exactly."""

import warnings

import pytest
import torch
from safetensors.torch import save_file

from gpt2cli import load
from gpt2cli.checkpoints import quantized_file
from gpt2cli.errors import CheckpointError
from gpt2cli.model.quantization import dequantize_groups, quantize_groups
from tests import models


@pytest.fixture
def weights():
    return models.small_model().state_dict()


def test_every_weight_comes_back_within_half_a_step(weights):
    back = quantized_file.to_floats(quantized_file.quantize_tensors(weights), "it")
    assert back.keys() == weights.keys()
    for name, tensor in weights.items():
        step = tensor.abs().amax(dim=-1, keepdim=True) / 127 if tensor.dim() == 2 else 0
        assert ((back[name] - tensor).abs() <= step * 0.5001).all(), name


def test_what_was_in_8_bits_stays_as_it_is(weights):
    once = quantized_file.to_floats(quantized_file.quantize_tensors(weights), "it")
    again = quantized_file.to_floats(quantized_file.quantize_tensors(once), "it")
    for name, tensor in once.items():
        torch.testing.assert_close(again[name], tensor)


def test_4_bits_come_back_to_the_bit(weights):
    small = quantized_file.quantize_tensors(weights, 4)
    assert quantized_file.precision(small) == "int4"
    assert torch.equal(small["wpe.weight"], weights["wpe.weight"])
    back = quantized_file.to_floats(small, "it")
    assert {name: tensor.shape for name, tensor in back.items()} == {n: t.shape for n, t in weights.items()}
    for name, tensor in weights.items():
        if name.startswith("h.") and tensor.dim() == 2:
            assert small[name].dtype is torch.uint8
            assert torch.equal(back[name], dequantize_groups(*quantize_groups(tensor))), name
    again = quantized_file.to_floats(quantized_file.quantize_tensors(back, 4), "it")
    for name, tensor in back.items():
        torch.testing.assert_close(again[name], tensor)


def test_a_width_without_groups_takes_8_bits():
    small = quantized_file.quantize_tensors({"h.0.mlp.c_fc.weight": torch.randn(4, 50)}, 4)
    assert small["h.0.mlp.c_fc.weight"].dtype is torch.int8


def test_equal_rows_are_found_and_shared(weights):
    assert quantized_file.share_equal_rows(weights) is weights
    table = weights["wte.weight"].clone()
    table[100:40000] = table[100]
    small = quantized_file.share_equal_rows(weights | {"wte.weight": table})
    assert len(small["wte.weight"]) == len(table) - 39899
    torch.testing.assert_close(quantized_file.to_floats(small, "it")["wte.weight"], table)


def test_the_error_is_that_of_what_comes_back(weights):
    small = quantized_file.quantize_tensors(weights, 4)
    back = quantized_file.to_floats(small, "it")
    names = [name.removesuffix(".scale") for name in small if name.endswith(".scale")]
    off, whole = (torch.cat([t.flatten() for t in ts]).norm() for ts in (
        [back[name] - weights[name] for name in names], [weights[name] for name in names]
    ))  # fmt: skip
    assert quantized_file.check_rounding(weights, small).relative == pytest.approx(float(off / whole), rel=1e-4)


def test_a_row_of_zeros_stays_zero():
    assert not quantized_file.to_floats(quantized_file.quantize_tensors({"w": torch.zeros(3, 4)}), "it")["w"].any()


def test_tokens_that_occur_keep_their_rows_and_the_others_share_the_mean(weights):
    table = weights["wte.weight"]
    occurs = torch.zeros(len(table), dtype=torch.bool)
    occurs[[0, 5, 50256]] = True
    small = quantized_file.share_rows(weights, occurs)
    assert small["wte.weight"].shape[0] == 4
    back = quantized_file.to_floats(small, "it")["wte.weight"]
    assert torch.equal(back[occurs], table[occurs])
    torch.testing.assert_close(back[~occurs], table[~occurs].mean(0).expand(len(table) - 3, -1))


def test_a_file_of_8_bits_is_a_checkpoint_like_any_other(weights, tmp_path):
    model, path = models.small_model(), tmp_path / "small.safetensors"
    occurs = torch.ones(len(weights["wte.weight"]), dtype=torch.bool)
    save_file(
        quantized_file.quantize_tensors(
            quantized_file.share_rows(weights, occurs.index_fill(0, torch.tensor([7]), False))
        ),
        path,
    )
    (tmp_path / "config.json").write_text('{"n_embd": 48, "n_head": 3}')
    loaded = load(ckpt=path, device="cpu")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(torch.as_tensor(loaded(ids)), model(ids), atol=0.15, rtol=0.05)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"h.0.mlp.c_fc.weight.scale": None}, "without a scale"),
        ({"h.0.mlp.c_fc.weight.scale": torch.ones(2)}, "without a scale"),
        ({"wte.index": torch.tensor([60000], dtype=torch.uint16)}, "not there"),
    ],
)
def test_damage_is_named(weights, change, word):
    small = quantized_file.quantize_tensors(weights) | change
    with pytest.raises(CheckpointError, match=word):
        quantized_file.to_floats({name: tensor for name, tensor in small.items() if tensor is not None}, "it")


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
    small = quantized_file.quantize_tensors(weights, 4)
    small[matrix + quantized_file.SCALE if name == "scale" else matrix] = change
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
    small, name = quantized_file.quantize_tensors(weights, bits), "h.0.attn.c_attn.weight.scale"
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
    assert (
        load_small(
            tmp_path, quantized_file.quantize_tensors(quantized_file.share_rows(weights, occurs), 4)
        ).config.vocab_size
        == 50257
    )
