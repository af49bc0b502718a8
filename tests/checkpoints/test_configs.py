"""What a checkpoint says of heads, biases and LoRA is heard wherever it says so; what is assumed is told."""

import json

import pytest
import torch

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.config import GPTConfig
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.inference.cpu import bandwidth
from tests import models
from tests.checkpoints.test_state_dicts import loaded, nano

CONFIG = GPTConfig(n_layer=2, n_head=4, n_embd=128, block_size=16, vocab_size=500)


@pytest.fixture(scope="module")
def model():
    return models.small_model(CONFIG)


@pytest.mark.parametrize("heads", ["n_head", "n_heads", "num_heads", "num_attention_heads"])
@pytest.mark.parametrize(
    "said",
    [
        *(lambda said, key=key: {key: said} for key in ("model_args", "config", "hyper_parameters", "hparams", "args")),
        lambda said: {"hyper_parameters": {"config": said, "lr": 1e-3}},
        lambda said: {"config": {"model": said, "train": {"lr": 1e-3}}},
        lambda said: {"config": {"lr": 1e-3}, "args": said},
        lambda said: said,
    ],
)
def test_heads_are_read_wherever_they_are_said(model, tmp_path, said, heads):
    notes = []
    content = {"state_dict": {"model." + name: tensor for name, tensor in nano(model).items()}}
    opened = loaded(tmp_path, content | said({heads: 4}), notes)
    assert opened.config.n_head == 4
    assert_same_logits(opened, model)
    assert notes == []


def assert_same_logits(opened, model):
    idx = torch.arange(16)[None]
    with torch.no_grad():
        torch.testing.assert_close(torch.as_tensor(opened(idx)), model(idx), atol=1e-6, rtol=0)


def test_heads_that_are_assumed_are_told(model, tmp_path):
    notes = []
    assert loaded(tmp_path, nano(model), notes).config.n_head == 2
    [note] = notes
    assert note.startswith(f"{tmp_path / 'a.pt'}: ")
    assert "2 heads of 64 are assumed" in note
    published = models.small_model(GPTConfig(n_layer=1, n_head=12, n_embd=768, block_size=4, vocab_size=50))
    assert loaded(tmp_path, nano(published), notes).config.n_head == 12
    assert len(notes) == 1


def test_every_command_tells_what_was_assumed(run, tmp_path, monkeypatch):
    monkeypatch.setattr(bandwidth, "BUFFER_BYTES", 2**20)
    torch.save(nano(models.small_model(GPTConfig(1, 2, 128, block_size=16))), tmp_path / "a.pt")
    (tmp_path / "text.txt").write_text("Once upon a time there was a cat. " * 9)
    data = ["--data", str(tmp_path / "text.txt")]
    for words in (
        ["generate", "A", "-n", "1"],
        ["chat", "--prompt", "A", "-n", "1"],
        ["evaluate", *data, "--stride", "8"],
        ["finetune", *data, "--max-steps", "1", "--out", str(tmp_path / "o.pt"), "--run-dir", str(tmp_path / "run")],
        ["export", "--format", "nanogpt", "--out", str(tmp_path / "n.pt")],
        ["quantize", "--bits", "8", "--out", str(tmp_path / "q.safetensors")],
        ["bench", "--prompt-tokens", "1", "--new-tokens", "2", "--repeats", "1"],
        ["bench", "--all", "--prompt-tokens", "30"],  # which the window is too small for
    ):
        done = run(*words, "--ckpt", str(tmp_path / "a.pt"))
        assert done.returncode == (2 if "--all" in words else 0), done
        assert done.stderr.count("2 heads of 64 are assumed") == 1, words


@pytest.mark.parametrize("where", ["beside", "config", "args", "model_args"])
def test_a_model_without_biases_that_says_so(tmp_path, where):
    model = models.small_model(CONFIG)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    state = {name: tensor for name, tensor in nano(model).items() if not name.endswith("bias")}
    with pytest.raises(CheckpointError, match=r'no biases, but no config says .* "bias": false beside it'):
        loaded(tmp_path, {"model": state})
    said = {"bias": False, "n_head": 4, "n_embd": 128}
    if where == "beside":
        (tmp_path / "config.json").write_text(json.dumps(said))
    assert_same_logits(loaded(tmp_path, {"model": state} | ({} if where == "beside" else {where: said})), model)


def test_biases_in_the_file_and_heads_beside_it(tmp_path):
    model = models.small_model(CONFIG)
    state = {name: tensor for name, tensor in nano(model).items() if not name.endswith("bias")}
    (tmp_path / "config.json").write_text(json.dumps({"n_embd": 128, "n_head": 4}))
    opened = loaded(tmp_path, {"model": state, "config": {"bias": False}})
    assert opened.config.n_head == 4
    assert not opened.ln_f.bias.any()


class Adapted(torch.nn.Module):
    """A linear layer as the original project's LoRA notebook wraps it."""

    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear, self.alpha = linear, alpha
        self.A = torch.randn(linear.in_features, rank) * 0.1
        self.B = torch.randn(rank, linear.out_features) * 0.1

    def forward(self, x):
        return self.linear(x) + self.alpha * (x @ self.A @ self.B)


def with_lora(config, alpha, head=False):
    """A model with LoRA on each linear layer, and its state dict in the original project's names."""
    model = models.small_model(config)
    state = models.original_state(model, model.wte.weight.detach().clone())
    names = {"attn.c_attn": "attn.qkv", "attn.c_proj": "attn.out_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for block in range(config.n_layer):
        for ours, theirs in names.items():
            layer = Adapted(model.h[block].get_submodule(ours), 3, alpha)
            model.h[block].set_submodule(ours, layer)
            wrap(state, f"trf_blocks.{block}.{theirs}", layer)
    if head:
        model.lm_head = Adapted(torch.nn.Linear(config.n_embd, config.vocab_size, bias=False), 3, alpha)
        model.lm_head.linear.weight.data = model.wte.weight.detach().clone()
        wrap(state, "out_head", model.lm_head)
    return model, state


def wrap(state, name, layer):
    for leaf in ("weight", "bias"):
        if f"{name}.{leaf}" in state:
            state[f"{name}.linear.{leaf}"] = state.pop(f"{name}.{leaf}")
    state |= {f"{name}.lora.A": layer.A, f"{name}.lora.B": layer.B}


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module."])
def test_lora_beside_its_layers_is_merged(tmp_path, prefix):
    model, state = with_lora(GPTConfig(2, 2, 128, block_size=16, vocab_size=500), alpha=16)
    notes = []
    opened = loaded(tmp_path, {prefix + name: tensor for name, tensor in state.items()}, notes)
    idx = torch.arange(16)[None]
    with torch.no_grad():
        torch.testing.assert_close(opened(idx), model(idx), atol=1e-4, rtol=1e-5)
    assert any("LoRA of rank 3 into 8 layers with alpha 16, not divided by the rank" in note for note in notes)


@pytest.mark.parametrize("where", ["key", "config", "beside"])
def test_the_alpha_that_is_said_is_taken(tmp_path, where):
    model, state = with_lora(GPTConfig(1, 2, 128, block_size=16, vocab_size=500), alpha=5)
    said = {"lora_alpha": 5, "n_heads": 2, "emb_dim": 128}
    content = {"key": {"alpha": 5}, "config": {"config": said}, "beside": {}}[where]
    if where == "beside":
        (tmp_path / "config.json").write_text(json.dumps(said))
    notes = []
    opened = loaded(tmp_path, {"model_state_dict": state} | content, notes)
    idx = torch.arange(16)[None]
    with torch.no_grad():
        torch.testing.assert_close(opened(idx), model(idx), atol=1e-4, rtol=1e-5)
    assert any("with alpha 5, not divided by the rank, from its config" in note for note in notes)


def test_lora_on_the_head_makes_it_one_of_its_own(tmp_path):
    model, state = with_lora(GPTConfig(1, 2, 128, block_size=16, vocab_size=500), alpha=16, head=True)
    opened = loaded(tmp_path, state)
    assert not opened.config.tied
    layer = model.lm_head
    expected = layer.linear.weight + 16 * (layer.A @ layer.B).t()
    torch.testing.assert_close(opened.lm_head.weight, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("trf_blocks.0.attn.qkv.lora.B"), r"attn\.qkv' has LoRA that is not whole"),
        (lambda state: state.update({"trf_blocks.0.mlp.fc1.lora.A": torch.ones(4, 3)}), r"fc1' has LoRA of another"),
        (lambda state: state.update({"trf_blocks.0.mlp.fc1.lora.A": torch.ones(3)}), r"fc1' has LoRA of another"),
        (lambda state: state.update({"trf_blocks.0.mlp.fc1.lora.A": torch.ones(128, 3).int()}), "not floating point"),
        (lambda state: state.update({"h.0.base_layer.weight": torch.ones(2)}), "PEFT's adapter beside its layers"),
    ],
)
def test_lora_that_does_not_fit_is_named(tmp_path, change, says):
    _, state = with_lora(GPTConfig(1, 2, 128, block_size=16, vocab_size=500), alpha=16)
    change(state)
    with pytest.raises(CheckpointError, match=says):
        loaded(tmp_path, state)


def test_peft_models_saved_whole_are_told_the_way(tmp_path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=128, n_positions=16, vocab_size=500)
    theirs = peft.get_peft_model(transformers.GPT2LMHeadModel(config), peft.LoraConfig(fan_in_fan_out=True))
    with pytest.raises(CheckpointError, match=r"save_pretrained\(\) and give its directory as --ckpt"):
        loaded(tmp_path, theirs.state_dict())


@pytest.mark.parametrize("place", ["file", "absolute", "dotted", "missing"])
def test_a_file_is_no_model_name(model, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    torch.save(nano(model), tmp_path / "out" / "ckpt.pt")
    name = {"file": "out/ckpt.pt", "absolute": f"{tmp_path}/out/ckpt.pt", "dotted": "./out/ckpt.pt"}.get(
        place, "a/b.pt"
    )
    with pytest.raises(UsageError, match=r"give it as --ckpt|a checkpoint file as --ckpt"):
        load_plain(name)
