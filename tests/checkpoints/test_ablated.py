"""Parts that are taken out of a model's weights equal those that a pass replaces by zeros, in every kind of file."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from gpt2cli import background, encode
from gpt2cli.checkpoints.load import load, load_plain
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.packed_directory import directory_for
from gpt2cli.checkpoints.quantized_file import quantize_model
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.checkpoints.save_adapter import save_adapter
from gpt2cli.config import GPTConfig, LoRAConfig, SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.export.gguf_file import write_gguf
from gpt2cli.generation.text import generate
from gpt2cli.inference.decoder import make_decoder
from gpt2cli.insight.passes import Site, logits, trace
from gpt2cli.model.lora import add_lora, lora_state
from gpt2cli.model.part_names import MLP, Attention, Head, heads_and_mlps, parse_parts
from tests import models

CONFIG = GPTConfig(n_layer=3, n_head=2, n_embd=64, block_size=48, vocab_size=300)
LORA = LoRAConfig(rank=2)
KINDS = ("hub", "a.pt", "untied.pt", "a.gguf", "int8.safetensors", "int4.safetensors", "bf16", "lora", "tiny")
PARTS = ("0.1", "mlp.1", "attn.2", "0.0,1.1,mlp.2,attn.1", "0.0,0.1")
GREEDY = SamplingConfig(max_new_tokens=10, temperature=0)
IDX = torch.tensor([[5, 17, 280, 3, 3, 99, 0, 12], [1, 2, 3, 4, 5, 6, 7, 8]])


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    """The same model in each kind of file."""
    place = tmp_path_factory.mktemp("kinds")
    model = models.small_model(CONFIG)
    models.save_hub_directory(model, place / "hub")
    models.save_hub_directory(models.small_model(CONFIG).bfloat16(), place / "bf16")
    save_checkpoint(model, place / "a.pt")
    write_gguf(place / "a.gguf", model.state_dict(), CONFIG, "q8_0", "a", None)
    for bits in (8, 4):
        quantize_model(ModelSpec(ckpt=place / "a.pt"), bits, place / f"int{bits}.safetensors")
    save_checkpoint(models.small_model(replace(CONFIG, tied=False)), place / "untied.pt")
    add_lora(model, LORA)
    for parameter in lora_state(model).values():
        parameter.normal_(std=0.2)
    save_adapter(place / "lora", lora_state(model), LORA, base=str(place / "hub"))
    by_name = {name: ModelSpec(str(place / name)) for name in ("hub", "bf16")} | {"tiny": ModelSpec("tiny")}
    files = {name: ModelSpec(ckpt=place / name) for name in KINDS if name not in by_name}
    return files | by_name


def edits(parts, model):
    """The edits of a pass that take out parts."""
    found = {}
    for part in parts:
        if isinstance(part, Head):
            heads = [each.head for each in parts if isinstance(each, Head) and each.layer == part.layer]
            keep = torch.ones(model.config.n_head, 1, 1).index_fill_(0, torch.tensor(heads), 0)
            found[part.layer, Site.HEADS] = lambda mix, keep=keep: mix * keep
        else:
            found[part.layer, Site.MLP if isinstance(part, MLP) else Site.ATTENTION] = torch.zeros_like
    return found


@torch.no_grad()
def by_edits(spec, parts):
    model = spec.load_plain()
    return logits(model, trace(model, IDX, edits(parts, model)).final)


@pytest.mark.parametrize("names", PARTS)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_logits_equal_those_of_a_pass_whose_parts_are_zero(specs, kind, names):
    parts = parse_parts(names)
    expected = by_edits(specs[kind], parts)
    without = replace(specs[kind], ablate=parts, device="cpu", precision="fp32")
    assert torch.allclose(without.load_plain()(IDX), expected, rtol=1e-4, atol=1e-4)
    assert torch.allclose(without.read().float().eval()(IDX), expected, rtol=1e-4, atol=1e-4)
    on_kernels, on_torch = without.load(), make_decoder(without.read().float(), "cpu", "fp32")
    for decoder in (on_kernels, on_torch):
        assert np.allclose(decoder(IDX.numpy()), expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(specs[kind].load_plain()(IDX), expected, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_else_changes(specs, kind):
    whole, without = (replace(specs[kind], ablate=parts).read_stored() for parts in ((), parse_parts("1.1,mlp.2")))
    assert (without.config, without.origin) == (whole.config, whole.origin)
    changed = {"h.1.attn.c_proj.weight", "h.2.mlp.c_proj.weight", "h.2.mlp.c_proj.bias"}
    for name in whole.weights:
        before, after = whole.weights[name], without.weights[name]
        assert (before.dtype, before.shape) == (after.dtype, after.shape)
        assert np.array_equal(before, after) == (name not in changed)
    assert all(whole.weights[name].any() for name in changed)


@pytest.mark.parametrize("kind", ["hub", "untied.pt", "tiny"])
def test_to_take_out_nothing_is_the_identity(specs, kind):
    assert torch.equal(replace(specs[kind], ablate=()).load_plain()(IDX), specs[kind].load_plain()(IDX))


@pytest.mark.parametrize("kind", ["hub", "untied.pt", "tiny"])
@torch.no_grad()
def test_to_take_out_everything_leaves_the_embedding(specs, kind):
    model = specs[kind].load_plain()
    parts = (*map(Attention, range(model.config.n_layer)), *heads_and_mlps(model.config))
    without = replace(specs[kind], ablate=parts).load_plain()
    assert torch.equal(without(IDX), logits(model, model.wte(IDX) + model.wpe.weight[: IDX.shape[1]]))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "int4"])
def test_both_engines_write_the_same_text_without_parts(precision):
    spec = ModelSpec("tiny", device="cpu", precision=precision, ablate=parse_parts("1.0,mlp.3"))
    text = generate(spec.load(), "Once upon a time", GREEDY)
    assert text == generate(make_decoder(spec.read().float(), "cpu", precision), "Once upon a time", GREEDY)
    assert text != generate(models.tiny(precision), "Once upon a time", GREEDY)


def test_the_text_is_the_likeliest_one_of_edited_passes():
    parts = parse_parts("1.0,mlp.3")
    model, context = load_plain("tiny"), encode("Once upon a time")
    text = generate(load("tiny", device="cpu", precision="fp32", ablate="1.0,mlp.3"), "Once upon a time", GREEDY)
    for token in encode(text):
        final = trace(model, torch.tensor([context]), edits(parts, model)).final[0, -1]
        assert int(logits(model, final).argmax()) == token
        context.append(token)


def test_packed_weights_on_disk_are_those_of_whole_models(specs, home, monkeypatch, tmp_path):
    monkeypatch.setenv("GPT2CLI_CACHE", str(tmp_path / "cache"))
    whole = replace(specs["hub"], device="cpu", precision="fp32")
    without = replace(whole, ablate=parse_parts("mlp.1"))
    kept = directory_for(None).path
    first = without.load()(IDX)
    background.finish()
    assert not list(kept.glob("*"))
    expected = whole.load()(IDX)
    background.finish()
    assert len(packed := sorted(path.name for path in kept.glob("fp32-*"))) == 1
    assert np.array_equal(without.load()(IDX), first)
    background.finish()
    assert np.array_equal(whole.load()(IDX), expected)
    assert not np.allclose(first, expected, atol=1e-2)
    assert sorted(path.name for path in kept.glob("fp32-*")) == packed


@pytest.mark.parametrize("kind", ["hub", "lora", "int4.safetensors", "tiny"])
def test_a_part_that_is_not_there_is_refused(specs, kind):
    spec = replace(specs[kind], ablate=(MLP(0), Head(0, 6)))
    for method in (spec.load, spec.load_plain, spec.read, spec.read_stored, spec.shape):
        with pytest.raises(UsageError, match=r"0\.6 is not there: a layer of this model has heads 0 to [15]$"):
            method()


def test_the_python_api_takes_names():
    model = load_plain("tiny", ablate="1.0, mlp.3")
    assert not model.h[3].mlp.c_proj.weight.any()
    with pytest.raises(UsageError, match="names no part"):
        load("tiny", ablate="")


def test_it_needs_no_torch():
    code = "import sys, gpt2cli; gpt2cli.load('tiny', device='cpu', ablate='1.0,attn.2'); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
