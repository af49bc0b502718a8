"""Every dialect gives the logits of the model that was written down in it."""

import json

import pytest
import torch
from safetensors.torch import save_file

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.config import GPTConfig
from gpt2cli.errors import CheckpointError
from tests import models

IDX = torch.arange(20).reshape(2, 10) * 31 % 500
CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=37, vocab_size=500)


@pytest.fixture(scope="module")
def model():
    return models.small_model(CONFIG)


def assert_same(loaded, model, atol=0.0):
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDX), model(IDX), atol=atol or 1e-6, rtol=0)


@pytest.mark.parametrize("prefix", ["", "transformer."], ids=["hub", "saved by transformers"])
@pytest.mark.parametrize("kind", ["directory", "file"])
def test_both_hub_layouts(model, tmp_path, prefix, kind):
    models.save_hub_directory(model, tmp_path, prefix)
    loaded = load_plain(str(tmp_path)) if kind == "directory" else load_plain(ckpt=tmp_path / "model.safetensors")
    assert loaded.config.n_head == 3
    assert_same(loaded, model)


def test_ours_as_pt_and_as_safetensors(model, tmp_path):
    torch.save(models.our_checkpoint(model), tmp_path / "a.pt")
    metadata = {"config": json.dumps(models.our_checkpoint(model)["config"])}
    save_file(model.state_dict(), tmp_path / "a.safetensors", metadata)
    for file in ("a.pt", "a.safetensors"):
        assert_same(load_plain(ckpt=tmp_path / file), model)


def test_nanogpt(model, tmp_path):
    torch.save(models.nanogpt_checkpoint(model), tmp_path / "ckpt.pt")
    assert_same(load_plain(ckpt=tmp_path / "ckpt.pt"), model)


def test_nanogpt_without_biases(tmp_path):
    model = models.small_model(CONFIG)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    checkpoint = models.nanogpt_checkpoint(model)
    checkpoint["model_args"]["bias"] = False
    checkpoint["model"] = {name: t for name, t in checkpoint["model"].items() if not name.endswith("bias")}
    torch.save(checkpoint, tmp_path / "ckpt.pt")
    assert_same(load_plain(ckpt=tmp_path / "ckpt.pt"), model)


def test_original_with_a_head_of_its_own(tmp_path):
    model = models.small_model(GPTConfig(2, 2, 128, block_size=37, vocab_size=500, tied=False))
    torch.save(models.original_state(model, model.lm_head.weight), tmp_path / "original.pt")
    loaded = load_plain(ckpt=tmp_path / "original.pt")
    assert not loaded.config.tied
    assert loaded.config.n_head == 2  # heads of 64, as in every published GPT-2
    assert_same(loaded, model)


def test_original_with_a_head_that_equals_the_embedding_is_tied(tmp_path):
    model = models.small_model(GPTConfig(1, 2, 128, block_size=37, vocab_size=500))
    torch.save(models.original_state(model, model.wte.weight.clone()), tmp_path / "original.pt")
    loaded = load_plain(ckpt=tmp_path / "original.pt")
    assert loaded.config.tied
    assert_same(loaded, model)


def test_llms_from_scratch(model, tmp_path):
    torch.save(models.llms_from_scratch_state(model), tmp_path / "gpt.pth")
    (tmp_path / "config.json").write_text(json.dumps({"emb_dim": 48, "n_heads": 3, "n_layers": 2}))
    assert_same(load_plain(ckpt=tmp_path / "gpt.pth"), model)


def test_llms_from_scratch_without_query_key_value_biases(model, tmp_path):
    state = models.llms_from_scratch_state(model)
    for name in [name for name in state if ".att.W_" in name and name.endswith("bias")]:
        del state[name]
    torch.save({"model_state_dict": state, "optimizer_state_dict": {}}, tmp_path / "gpt.pth")
    (tmp_path / "config.json").write_text(json.dumps({"emb_dim": 48, "n_heads": 3}))
    without = models.small_model(CONFIG)
    with torch.no_grad():
        for block in without.h:
            block.attn.c_attn.bias.zero_()
    assert_same(load_plain(ckpt=tmp_path / "gpt.pth"), without)


@pytest.mark.parametrize("which", ["query", "key", "value"])
@pytest.mark.parametrize("shape", [(48,), (), (47, 48), (48, 47), (48, 48, 1)], ids=str)
def test_query_key_and_value_that_do_not_go_together(model, tmp_path, which, shape):
    name = f"trf_blocks.1.att.W_{which}.weight"
    torch.save(models.llms_from_scratch_state(model) | {name: torch.zeros(shape)}, tmp_path / "gpt.pth")
    with pytest.raises(CheckpointError, match=rf"trf_blocks\.1\.att\.W_{which}\.weight"):
        load_plain(ckpt=tmp_path / "gpt.pth")


@pytest.mark.parametrize("kind", ["meta", "sparse", "quantized"])
def test_tensors_that_cannot_be_computed_with_are_named(model, tmp_path, kind):
    plain = torch.zeros(48)
    odd = {
        "meta": lambda: plain.to("meta"),
        "sparse": plain.to_sparse,
        "quantized": lambda: torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8),
    }[kind]()
    torch.save(model.state_dict() | {"h.0.ln_1.bias": odd}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"h\.0\.ln_1\.bias is no plain tensor"):
        load_plain(ckpt=tmp_path / "a.pt")


def test_a_config_beside_a_file_is_checked_as_in_a_directory(model, tmp_path):
    models.save_hub_directory(model, tmp_path)
    for field, value in (("activation_function", "relu"), ("model_type", "llama")):
        (tmp_path / "config.json").write_text(json.dumps(models.hub_config(CONFIG) | {field: value}))
        for where in ({"ckpt": tmp_path / "model.safetensors"}, {"model": str(tmp_path)}):
            with pytest.raises(CheckpointError, match=f"{field} is '{value}'"):
                load_plain(**where)


def test_a_head_in_another_type_than_the_embedding(model, tmp_path):
    state = model.state_dict() | {"lm_head.weight": model.wte.weight.detach().half()}
    torch.save({"config": models.our_checkpoint(model)["config"], "model": state}, tmp_path / "a.pt")
    assert_same(load_plain(ckpt=tmp_path / "a.pt"), model, atol=0.1)


def test_heads_that_nothing_tells_are_not_guessed(model, tmp_path):
    torch.save(models.llms_from_scratch_state(model), tmp_path / "gpt.pth")
    with pytest.raises(CheckpointError, match="does not say how many heads"):
        load_plain(ckpt=tmp_path / "gpt.pth")


def test_names_of_no_dialect_are_refused(tmp_path):
    torch.save({"layers.0.w": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"names: layers\.0\.w"):
        load_plain(ckpt=tmp_path / "other.pt")


def test_sharded_safetensors(model, tmp_path):
    models.save_hub_directory(model, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    state, index = models.hub_state(model), {}
    for number, names in enumerate((sorted(state)[:9], sorted(state)[9:])):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: state[name] for name in names}, tmp_path / file)
        index |= dict.fromkeys(names, file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert_same(load_plain(str(tmp_path)), model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_load_as_fp32(model, tmp_path, dtype):
    models.save_hub_directory(model, tmp_path)
    state = {name: tensor.to(dtype) for name, tensor in models.hub_state(model).items()}
    save_file(state, tmp_path / "model.safetensors")
    loaded = load_plain(str(tmp_path), device="cpu")
    assert loaded.wte.weight.dtype == torch.float32
    assert_same(loaded, model, atol=0.05)
