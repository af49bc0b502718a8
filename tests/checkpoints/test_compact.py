"""What is stored small comes back as it was, nearly or exactly."""

import pytest
import torch
from safetensors.torch import save_file

from gpt2cli import load
from gpt2cli.checkpoints import compact
from gpt2cli.errors import CheckpointError
from gpt2cli.model.quantization import dequantize_groups, quantize_groups
from tests import models


@pytest.fixture
def weights():
    return models.small_model().state_dict()


def test_every_weight_comes_back_within_half_a_step(weights):
    back = compact.expand(compact.quantize(weights), "it")
    assert back.keys() == weights.keys()
    for name, tensor in weights.items():
        step = tensor.abs().amax(dim=-1, keepdim=True) / 127 if tensor.dim() == 2 else 0
        assert ((back[name] - tensor).abs() <= step * 0.5001).all(), name


def test_what_was_in_8_bits_stays_as_it_is(weights):
    once = compact.expand(compact.quantize(weights), "it")
    again = compact.expand(compact.quantize(once), "it")
    for name, tensor in once.items():
        torch.testing.assert_close(again[name], tensor)


def test_4_bits_come_back_to_the_bit(weights):
    small = compact.quantize(weights, 4)
    assert compact.precision(small) == "int4"
    assert torch.equal(small["wpe.weight"], weights["wpe.weight"])
    back = compact.expand(small, "it")
    assert {name: tensor.shape for name, tensor in back.items()} == {n: t.shape for n, t in weights.items()}
    for name, tensor in weights.items():
        if name.startswith("h.") and tensor.dim() == 2:
            assert small[name].dtype is torch.uint8
            assert torch.equal(back[name], dequantize_groups(*quantize_groups(tensor))), name
    again = compact.expand(compact.quantize(back, 4), "it")
    for name, tensor in back.items():
        torch.testing.assert_close(again[name], tensor)


def test_a_width_without_groups_takes_8_bits():
    small = compact.quantize({"h.0.mlp.c_fc.weight": torch.randn(4, 50)}, 4)
    assert small["h.0.mlp.c_fc.weight"].dtype is torch.int8


def test_equal_rows_are_found_and_shared(weights):
    assert compact.share_equal_rows(weights) is weights
    table = weights["wte.weight"].clone()
    table[100:40000] = table[100]
    small = compact.share_equal_rows(weights | {"wte.weight": table})
    assert len(small["wte.weight"]) == len(table) - 39899
    torch.testing.assert_close(compact.expand(small, "it")["wte.weight"], table)


def test_the_error_is_that_of_what_comes_back(weights):
    small = compact.quantize(weights, 4)
    back = compact.expand(small, "it")
    names = [name.removesuffix(".scale") for name in small if name.endswith(".scale")]
    off, whole = (torch.cat([t.flatten() for t in ts]).norm() for ts in (
        [back[name] - weights[name] for name in names], [weights[name] for name in names]
    ))  # fmt: skip
    assert compact.relative_error(weights, small) == pytest.approx(float(off / whole), rel=1e-4)


def test_a_row_of_zeros_stays_zero():
    assert not compact.expand(compact.quantize({"w": torch.zeros(3, 4)}), "it")["w"].any()


def test_tokens_that_occur_keep_their_rows_and_the_others_share_the_mean(weights):
    table = weights["wte.weight"]
    occurs = torch.zeros(len(table), dtype=torch.bool)
    occurs[[0, 5, 50256]] = True
    small = compact.share_rows(weights, occurs)
    assert small["wte.weight"].shape[0] == 4
    back = compact.expand(small, "it")["wte.weight"]
    assert torch.equal(back[occurs], table[occurs])
    torch.testing.assert_close(back[~occurs], table[~occurs].mean(0).expand(len(table) - 3, -1))


def test_a_file_of_8_bits_is_a_checkpoint_like_any_other(weights, tmp_path):
    model, path = models.small_model(), tmp_path / "small.safetensors"
    occurs = torch.ones(len(weights["wte.weight"]), dtype=torch.bool)
    save_file(compact.quantize(compact.share_rows(weights, occurs.index_fill(0, torch.tensor([7]), False))), path)
    (tmp_path / "config.json").write_text('{"n_embd": 48, "n_head": 3}')
    loaded = load(ckpt=path, device="cpu")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids), model(ids), atol=0.15, rtol=0.05)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"h.0.mlp.c_fc.weight.scale": None}, "without a scale"),
        ({"h.0.mlp.c_fc.weight.scale": torch.ones(2)}, "without a scale"),
        ({"wte.index": torch.tensor([60000], dtype=torch.uint16)}, "not there"),
    ],
)
def test_damage_is_named(weights, change, word):
    small = compact.quantize(weights) | change
    with pytest.raises(CheckpointError, match=word):
        compact.expand({name: tensor for name, tensor in small.items() if tensor is not None}, "it")


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
    small = compact.quantize(weights, 4)
    small[matrix + compact.SCALE if name == "scale" else matrix] = change
    path = tmp_path / "small.safetensors"
    save_file({name: tensor for name, tensor in small.items() if tensor is not None}, path)
    (tmp_path / "config.json").write_text('{"n_embd": 48, "n_head": 3}')
    with pytest.raises(CheckpointError, match=r"mlp\.c_fc\.weight"):
        load(ckpt=path, device="cpu")
