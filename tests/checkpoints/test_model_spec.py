"""One value says which model: what it loads, what it is made of, and what it reads."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from gpt2cli.checkpoints.load import load, load_plain
from gpt2cli.checkpoints.metadata import NO_METADATA
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.quantized_file import quantize_model
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.checkpoints.save_adapter import save_adapter
from gpt2cli.config import GPTConfig, LoRAConfig
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.model.lora import add_lora, lora_state
from gpt2cli.prompts import ALPACA
from tests import models

SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=48, vocab_size=300)
LORA = LoRAConfig(rank=2)


@pytest.fixture
def specs(tmp_path):
    """A model in each kind of file: a directory, a file, a quantized file, and an adapter for the directory."""
    model = models.small_model(SHAPE)
    base = models.save_hub_directory(model, tmp_path / "base")
    save_checkpoint(model, tmp_path / "a.pt", template=ALPACA.to_dict())
    quantize_model(ModelSpec(ckpt=tmp_path / "a.pt"), 4, tmp_path / "small.safetensors")
    add_lora(model, LORA)
    save_adapter(tmp_path / "lora", lora_state(model), LORA, base=str(base))
    files = {name: ModelSpec(ckpt=tmp_path / name, offline=True) for name in ("a.pt", "small.safetensors", "lora")}
    return {"base": ModelSpec(str(base), offline=True), **files, "tiny": ModelSpec("tiny", offline=True)}


def test_the_shape_is_the_loaded_models(specs):
    for name, spec in specs.items():
        assert spec.shape() == spec.load_plain().config, name
        for weight in spec.read_stored(only_shape=True).weights.arrays.values():
            with pytest.raises(ValueError, match="only the shape"):
                weight.read()


def test_the_shape_needs_no_weights(specs, monkeypatch):
    monkeypatch.setattr("gpt2cli.checkpoints.stored_model.is_finite", None)
    for spec in specs.values():
        spec.shape(for_text=spec.model == "tiny")


def test_the_shape_of_a_quantized_model_needs_no_torch():
    code = "import sys; from gpt2cli.checkpoints.model_spec import ModelSpec; ModelSpec('tiny').shape()\n"
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_value_that_is_not_finite_is_found_when_the_model_is_loaded(tmp_path):
    model = models.small_model(SHAPE)
    models.save_hub_directory(model, tmp_path)
    with torch.no_grad():
        model.ln_f.weight[0] = torch.nan
    models.save_hub_directory(model, tmp_path)
    spec = ModelSpec(str(tmp_path))
    assert spec.shape() == model.config
    for load_it in (spec.load, spec.load_plain, spec.read):
        with pytest.raises(CheckpointError, match=r"ln_f\.weight has values that are not finite"):
            load_it()


def test_an_adapter_for_another_base_is_found_by_its_shape(specs, tmp_path):
    wide = models.save_hub_directory(models.small_model(GPTConfig(2, 2, 64, 48, 300)), tmp_path / "wide")
    with pytest.raises(CheckpointError, match="adapter for another base"):
        ModelSpec(str(wide), tmp_path / "lora").shape()


def test_it_loads_what_the_functions_load(specs, tmp_path):
    idx = torch.arange(6)[None]
    base, adapted = specs["base"].model, tmp_path / "lora"
    for spec in (specs["base"], ModelSpec(base, adapted)):
        assert torch.equal(spec.load_plain()(idx), load_plain(spec.model, ckpt=spec.ckpt)(idx))
        fp32 = ModelSpec(spec.model, spec.ckpt, "cpu", "fp32")
        assert np.array_equal(fp32.load()(idx), load(spec.model, ckpt=spec.ckpt, device="cpu", precision="fp32")(idx))


def test_its_files_are_all_that_it_is_made_of(specs, tmp_path):
    names = {
        name: {file.relative_to(tmp_path).as_posix() for file in specs[name].files()}
        for name in specs
        if name != "tiny"
    }
    base = {"base/config.json", "base/model.safetensors"}
    assert names["base"] == base
    assert names["a.pt"] == {"a.pt"}
    assert names["lora"] == base | {"lora/adapter_config.json", "lora/adapter_model.safetensors"}
    assert [file.name for file in specs["tiny"].files()] == ["config.json", "model.safetensors"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFOs in directories")
def test_what_is_no_ordinary_file_does_not_count(specs, tmp_path):
    files = specs["base"].files()
    os.mkfifo(tmp_path / "base" / "fifo.safetensors")
    (tmp_path / "base" / "directory.safetensors").mkdir()
    (tmp_path / "base" / "broken.safetensors").symlink_to("missing")
    assert specs["base"].files() == files


def test_files_that_decide_about_weights_or_texts_count(specs, tmp_path):
    for name in ("tokenizer.json", "spiece.model", "model.safetensors.index.json"):
        (tmp_path / "base" / name).write_text("{}")
        (tmp_path / name).write_text("{}")
    new = {tmp_path / "base" / name for name in ("tokenizer.json", "spiece.model", "model.safetensors.index.json")}
    assert set(specs["base"].files()) > new
    assert set(specs["lora"].files()) > new
    (tmp_path / "config.json").write_text("{}")
    names = ["a.pt", "config.json", "tokenizer.json", "spiece.model"]
    assert specs["a.pt"].files() == [tmp_path / name for name in names]


@pytest.mark.parametrize("name", ["base", "lora"])
def test_a_tokenizer_that_changes_is_noticed_though_the_weights_were_packed(home, tmp_path, name):
    model = models.small_model()
    base = models.save_hub_directory(model, tmp_path / "base")
    add_lora(model, LORA)
    save_adapter(tmp_path / "lora", lora_state(model), LORA, base=str(base))
    spec = ModelSpec(str(base), tmp_path / name if name == "lora" else None, "cpu", "int8")
    tokenizer = tmp_path / name / "tokenizer.json"
    for _ in range(2):
        assert spec.load(for_text=True).origin.other_tokenizer is None
    tokenizer.write_text("[")
    for _ in range(2):
        assert spec.load().origin.other_tokenizer == "its tokenizer.json is not JSON"
        with pytest.raises(CheckpointError, match=r"another tokenizer \(its tokenizer.json is not JSON"):
            spec.load(for_text=True)
    tokenizer.write_text('{"model": {"type": "WordPiece"}}')
    assert spec.load().origin.other_tokenizer == "its tokenizer.json is of another kind than GPT-2's"
    tokenizer.unlink()
    assert spec.load(for_text=True).origin.other_tokenizer is None


def test_what_it_reads_may_not_be_overwritten(specs, tmp_path):
    lora = specs["lora"]
    for path in ("lora", "lora/adapter_config.json", "base", "base/model.safetensors", "."):
        assert lora.depends_on(tmp_path / path), path
    (tmp_path / "link").symlink_to(tmp_path / "base")
    assert lora.depends_on(tmp_path / "link")
    for path in ("a.pt", "new", "base2"):
        assert not lora.depends_on(tmp_path / path), path
    assert not specs["tiny"].depends_on(tmp_path)


def test_metadata_needs_no_network(specs, tmp_path):
    assert specs["a.pt"].metadata().template == ALPACA.to_dict()
    assert specs["tiny"].metadata().template
    for name in (None, "gpt2", "owner/name", str(tmp_path / "nowhere")):
        assert ModelSpec(name).metadata() == NO_METADATA


def test_names():
    assert [spec.name for spec in (ModelSpec(), ModelSpec("tiny"), ModelSpec("tiny", "x"))] == ["gpt2", "tiny", "x"]


def test_a_file_takes_no_model_beside_it(specs, tmp_path):
    with pytest.raises(UsageError, match="only if --ckpt is the directory of an adapter"):
        ModelSpec("tiny", tmp_path / "a.pt").shape()
