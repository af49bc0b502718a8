"""Every kind of file opens as the model that was written, and only a `.pt` file needs torch for it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gpt2cli.checkpoints.adapters import read_adapter
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.quantized_file import quantize_model
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.checkpoints.save_adapter import save_adapter
from gpt2cli.checkpoints.torch_arrays import to_array
from gpt2cli.config import GPTConfig, LoRAConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.export.gguf_file import write_gguf
from gpt2cli.model.lora import add_lora, lora_state
from gpt2cli.model.quantization import quantize_rows, round_weights
from gpt2cli.prompts import ALPACA
from tests import models

SHAPE = GPTConfig(n_layer=2, n_head=3, n_embd=96, block_size=40, vocab_size=500)
LORA = LoRAConfig(rank=3, alpha=5.0)
TYPES = {"fp64": torch.float64, "fp16": torch.float16, "bf16": torch.bfloat16}


@pytest.fixture(scope="module")
def model():
    return models.small_model(SHAPE)


def in_shards(directory, state):
    """The same directory with its weights in two files."""
    (directory / "model.safetensors").unlink()
    index = {}
    for number, names in enumerate((sorted(state)[:9], sorted(state)[9:])):
        save_file({name: state[name] for name in names}, directory / f"{number}.safetensors")
        index |= dict.fromkeys(names, f"{number}.safetensors")
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


@pytest.fixture(scope="module")
def exact(model, tmp_path_factory):
    """The model in all kinds of files that hold its weights to the bit, in fp32."""
    place, state = tmp_path_factory.mktemp("exact"), model.state_dict()
    for name in ("hub", "shards", "file"):
        (place / name).mkdir()
        models.save_hub_directory(model, place / name, "transformer." if name == "file" else "")
    in_shards(place / "shards", models.hub_state(model))
    save_checkpoint(model, place / "ours.safetensors", template=ALPACA.to_dict())
    write_gguf(place / "a.gguf", state, SHAPE, "f32", "a", None)
    (place / "config.json").write_text(json.dumps({"n_embd": SHAPE.n_embd, "n_head": SHAPE.n_head}))
    save_file(models.llms_from_scratch_state(model), place / "book.safetensors")
    save_file(models.original_state(model, model.wte.weight.clone()), place / "original.safetensors")
    torch.save(models.nanogpt_checkpoint(model), place / "nanogpt.pt")
    torch.save(models.our_checkpoint(model), place / "ours.pt")
    torch.save(models.our_checkpoint(model), place / "old.pt", _use_new_zipfile_serialization=False)
    files = ("file/model.safetensors", "ours.safetensors", "a.gguf", "book.safetensors", "original.safetensors")
    specs = {name: ModelSpec(ckpt=place / name) for name in (*files, "nanogpt.pt", "ours.pt", "old.pt")}
    return specs | {name: ModelSpec(str(place / name)) for name in ("hub", "shards")}


@pytest.fixture(scope="module")
def others(model, tmp_path_factory):
    """The model in other types, quantized and with an adapter, and the bundled model."""
    place = tmp_path_factory.mktemp("others")
    base = models.save_hub_directory(model, place / "base") if (place / "base").mkdir() is None else None
    for name, dtype in TYPES.items():
        state = {key: tensor.to(dtype) for key, tensor in models.hub_state(model).items()}
        save_file(state, place / f"{name}.safetensors")
        torch.save({"model": state, "config": {"n_head": SHAPE.n_head}}, place / f"{name}.pt")
    (place / "config.json").write_text(json.dumps({"n_embd": SHAPE.n_embd, "n_head": SHAPE.n_head}))
    for bits in (8, 4):
        quantize_model(ModelSpec(str(base)), bits, place / f"int{bits}.safetensors")
    write_gguf(place / "q8_0.gguf", model.state_dict(), SHAPE, "q8_0", "a", None)
    adapted = models.small_model(SHAPE)
    add_lora(adapted, LORA)
    with torch.no_grad():
        for tensor in lora_state(adapted).values():
            tensor.normal_(std=0.1)
    save_adapter(place / "lora", lora_state(adapted), LORA, base=str(base), template=ALPACA.to_dict())
    names = [f"{name}.{suffix}" for name in TYPES for suffix in ("safetensors", "pt")]
    names += ["int8.safetensors", "int4.safetensors", "q8_0.gguf", "lora"]
    return {name: ModelSpec(ckpt=place / name) for name in names} | {"tiny": ModelSpec("tiny")}


def equal(array, other):
    return array.dtype == other.dtype and array.shape == other.shape and (array == other).all()


def test_every_dialect_gives_the_weights_that_were_written(exact, model):
    state = model.state_dict()
    for kind, spec in exact.items():
        stored = spec.read_stored()
        assert stored.config == SHAPE, kind
        assert stored.weights.keys() == state.keys(), kind
        for name, tensor in state.items():
            assert equal(stored.weights[name], tensor.numpy()), (kind, name)


def test_the_types_of_a_file_stay_and_its_values_too(others, model):
    for kind, dtype in TYPES.items():
        for suffix in ("safetensors", "pt"):
            stored = others[f"{kind}.{suffix}"].read_stored()
            for name, tensor in model.state_dict().items():
                assert equal(stored.weights[name], to_array(tensor.to(dtype))), (kind, name)


def test_quantized_weights_are_those_that_the_rounding_gives(others, model):
    for precision in ("int8", "int4"):
        stored = others[f"{precision}.safetensors"].read_stored()
        assert stored.origin.precision == precision
        for name, tensor in model.state_dict().items():
            exact = tensor.numpy()
            if exact.ndim == 2 and name != "wpe.weight":
                exact = round_weights(exact, precision if name.startswith("h.") else "int8")
            assert equal(stored.weights[name], exact), (precision, name)
    numbers, scale = quantize_rows(model.wte.weight.detach().numpy())
    assert equal(others["int4.safetensors"].read_stored().weights["wte.weight"], numbers * scale[:, None])


def test_gpt_is_made_of_the_same_memory(exact, others):
    for kind, spec in (exact | others).items():
        stored, gpt = spec.read_stored(), spec.read()
        assert gpt.config == stored.config, kind
        assert gpt.origin == stored.origin, kind
        for name, parameter in gpt.state_dict().items():
            assert equal(to_array(parameter), stored.weights[name]), (kind, name)


def test_an_adapter_is_added_to_the_weights_that_it_changes(others, model):
    spec, state = others["lora"], model.state_dict()
    stored, adapter = spec.read_stored(), read_adapter(Path(str(spec.ckpt)))
    assert stored.origin.template == ALPACA.to_dict()
    for name, tensor in state.items():
        layer = name.removesuffix(".weight")
        expected = tensor.double().numpy()
        if layer in adapter.scales:
            A, B = (adapter.tensors[f"{layer}.lora_{part}"].read().astype(np.float64) for part in "AB")
            expected = expected + adapter.scales[layer] * B @ A
        np.testing.assert_allclose(stored.weights[name], expected, rtol=1e-5, atol=1e-7)


def test_only_what_torch_saved_needs_torch(exact, others):
    specs = [spec for name, spec in (exact | others).items() if not name.endswith(".pt")]
    kinds = [(spec.model, None if spec.ckpt is None else str(spec.ckpt)) for spec in specs]
    code = f"""
import sys
from gpt2cli.checkpoints.model_spec import ModelSpec
for model, ckpt in {kinds!r}:
    spec = ModelSpec(model, ckpt, offline=True)
    spec.shape()
    spec.metadata()
    stored = spec.read_stored()
    assert sum(weight.size for weight in stored.weights.values()) > 100_000
    assert not sys.modules.keys() & {{"torch", "llvmlite", "safetensors", "transformers"}}, spec
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weights_are_views_of_the_file_or_computed_at_each_access(exact, others):
    plain, computed = exact["hub"].read_stored().weights, others["int4.safetensors"].read_stored().weights
    name = "h.1.mlp.c_fc.weight"
    assert np.shares_memory(plain[name], plain[name])
    assert not np.shares_memory(computed[name], computed[name])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's list of memory maps")
def test_what_is_released_leaves_the_memory_and_comes_back(tmp_path):
    big = models.small_model(GPTConfig(n_layer=1, n_head=2, n_embd=128, block_size=16, vocab_size=20_000))
    path = models.save_hub_directory(big, tmp_path) / "model.safetensors"

    def resident() -> int:
        [entry] = Path("/proc/self/smaps").read_text().split(str(path))[1:]
        return int(entry.split("Rss:")[1].split()[0]) * 1024

    weights = ModelSpec(str(tmp_path)).read_stored().weights
    for name in weights:
        assert equal(weights[name], big.state_dict()[name].numpy())
        weights.release(name)
    assert resident() < 0.05 * path.stat().st_size
    assert equal(weights["wte.weight"], big.wte.weight.detach().numpy())
    assert resident() > 0.5 * path.stat().st_size


def test_changes_stay_in_memory(exact):
    spec = exact["hub"]
    file = Path(str(spec.model)) / "model.safetensors"
    before = file.read_bytes()
    gpt = spec.read()
    with torch.no_grad():
        gpt.wte.weight.add_(1)
    assert file.read_bytes() == before
    assert (spec.read_stored().weights["wte.weight"] + np.float32(1) == gpt.wte.weight.detach().numpy()).all()


def test_a_value_that_is_not_finite_is_found_when_it_is_read(model, tmp_path):
    state = models.hub_state(model)
    state["h.1.ln_1.bias"] = torch.full((SHAPE.n_embd,), torch.nan)
    models.save_hub_directory(model, tmp_path)
    save_file(state, tmp_path / "model.safetensors")
    weights = ModelSpec(str(tmp_path)).read_stored().weights
    assert weights["h.0.ln_1.bias"].size
    with pytest.raises(CheckpointError, match=r"h\.1\.ln_1\.bias has values that are not finite"):
        weights["h.1.ln_1.bias"]
