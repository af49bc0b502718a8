"""Every arrow of the map: out in a format, back in through `load`, and the model is the same."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch.nn import functional as F

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.metadata import read_metadata
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.checkpoints.save_adapter import save_adapter
from gpt2cli.config import GPTConfig, LoRAConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.export.formats import FORMATS
from gpt2cli.export.request import Request
from gpt2cli.export.write import export
from gpt2cli.model.lora import add_lora, lora_state
from gpt2cli.prompts import ALPACA
from gpt2cli.tokenizer import encode
from tests import models

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=128, block_size=40)
LORA = LoRAConfig(rank=4, alpha=6.0)
IDX = torch.arange(40).reshape(2, 20) * 1259 % 50257
TALE = (
    "Once upon a time there was a king who had three sons, and he loved them all so much that he did not know which of"
    " them he should make king after him. When the time came for him to die, he called them to his bed and spoke to"
    " them. 'Dear children,' he said, 'I have thought of something which I will tell you: whichever of you is the"
    " laziest shall have the kingdom.' Then the eldest said: 'Father, the kingdom is mine, for I am so lazy that when I"
    " lie down to sleep, and a drop falls into my eyes, I will not open them, that I may sleep.'"
)


@dataclass(frozen=True)
class Arrow:
    """A way out and back: what is written where, and how far the logits may be off."""

    format: str
    out: str
    dtype: str | None = None
    atol: float = 0.0
    head: int = 64  # the width of the model's heads

    def __str__(self) -> str:
        return "-".join(filter(None, (self.format, self.out.partition(".")[2], self.dtype)))


ARROWS = [
    Arrow("hf", "folder", atol=1e-5),
    Arrow("hf", "folder", "f16", atol=0.1),
    Arrow("hf", "folder", "bf16", atol=1.0),
    Arrow("gguf", "a.gguf", atol=1e-5),
    Arrow("gguf", "a.gguf", "f16", atol=0.1),
    Arrow("gguf", "a.gguf", "bf16", atol=1.0),
    Arrow("peft", "adapter", atol=1e-5),
    Arrow("nanogpt", "ckpt.pt", atol=1e-5),
    Arrow("nanogpt", "ckpt.safetensors", atol=1e-5),
    Arrow("original", "a.pt", atol=1e-5),
    Arrow("original", "a.safetensors", atol=1e-5),
    Arrow("gpt2cli", "a.pt"),
    Arrow("gpt2cli", "a.safetensors"),
    Arrow("gpt2cli", "a.safetensors", "f16", atol=0.1),
]


def logits_of(model, idx=IDX):
    with torch.no_grad():
        return model(idx)


@pytest.fixture(scope="module")
def model():
    return models.small_model(CONFIG)


@pytest.fixture(scope="module")
def ckpt(model, tmp_path_factory):
    """A model of ours, tuned on instructions as far as it says."""
    path = tmp_path_factory.mktemp("ours") / "finetuned.pt"
    save_checkpoint(model, path, template=ALPACA.to_dict())
    return path


@pytest.fixture(scope="module")
def adapted(model):
    adapted = models.small_model(CONFIG)
    add_lora(adapted, LORA)
    with torch.no_grad():
        for tensor in lora_state(adapted).values():
            tensor.normal_(std=0.1)
    return adapted


@pytest.fixture
def adapter(adapted, ckpt, tmp_path):
    save_adapter(tmp_path / "run", lora_state(adapted), LORA, base=str(ckpt), template=ALPACA.to_dict())
    return tmp_path / "run"


@pytest.mark.parametrize("arrow", ARROWS, ids=str)
def test_out_and_back(arrow, model, adapted, ckpt, adapter, tmp_path):
    is_adapter, out = arrow.format == "peft", tmp_path / arrow.out
    files = export(Request(ModelSpec(ckpt=adapter if is_adapter else ckpt), arrow.format, out, arrow.dtype))
    assert {file.name for file in files} == set(FORMATS[arrow.format].files or [out.name])
    if arrow.format == "hf":
        back, facts = load_plain(str(out), device="cpu"), ModelSpec(str(out)).metadata()
    else:
        back, facts = load_plain(ckpt=out, device="cpu"), read_metadata(out)
    torch.testing.assert_close(
        logits_of(back), logits_of(adapted if is_adapter else model), atol=arrow.atol, rtol=0, equal_nan=False
    )
    assert back.config == model.config
    if arrow.format not in ("nanogpt", "original"):  # which have no place for it
        assert facts.template == ALPACA.to_dict()


@pytest.mark.parametrize(("format", "out"), [("gpt2cli", "b.pt"), ("hf", "folder"), ("gguf", "b.gguf")])
def test_a_system_text_comes_back(model, tmp_path, format, out):
    template = ALPACA.with_system("You are {input},\n'a' \\n \"b\".").to_dict()
    save_checkpoint(model, tmp_path / "a.pt", template=template)
    export(Request(ModelSpec(ckpt=tmp_path / "a.pt"), format, tmp_path / out))
    facts = ModelSpec(str(tmp_path / out)).metadata() if format == "hf" else read_metadata(tmp_path / out)
    assert facts.template == template


def test_nanogpt_finds_what_its_own_checkpoints_hold(model, ckpt, tmp_path):
    """All that its `GPT(GPTConfig(**model_args)).load_state_dict(...)` asks for, and nothing else."""
    export(Request(ModelSpec(ckpt=ckpt), "nanogpt", tmp_path / "ckpt.pt"))
    written, own = torch.load(tmp_path / "ckpt.pt", weights_only=True), models.nanogpt_checkpoint(model)
    assert set(written["model_args"]) == set(own["model_args"])
    expected = {name.removeprefix("_orig_mod."): tensor for name, tensor in own["model"].items()}
    assert written["model"].keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in written["model"].items())
    assert (tmp_path / "ckpt.pt").stat().st_size < 4.1 * sum(p.numel() for p in model.parameters())  # the head once


def test_the_original_project_finds_its_names(model, ckpt, tmp_path):
    export(Request(ModelSpec(ckpt=ckpt), "original", tmp_path / "a.pt"))
    written = torch.load(tmp_path / "a.pt", weights_only=True)
    expected = models.original_state(model, model.wte.weight)
    assert written.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in written.items())


def test_every_format_is_an_arrow():
    assert {arrow.format for arrow in ARROWS} == set(FORMATS)


def test_all_the_way_round_nothing_changes(model, ckpt, tmp_path):
    """From each format to the next, which no rounding of fp32 survives unseen."""
    source, names = (
        (None, str(ckpt)),
        {"gguf": "a.gguf", "hf": "folder", "nanogpt": "a.pt", "original": "b.safetensors"},
    )
    for format, name in names.items():
        export(Request(ModelSpec(*source), format, tmp_path / name))
        source = (str(tmp_path / name), None) if format == "hf" else (None, str(tmp_path / name))
    back = load_plain(ckpt=source[1], device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), model.parameters(), strict=True))


def test_8_bits_know_tales_as_well(tmp_path):
    export(Request(ModelSpec("tiny"), "gguf", tmp_path / "tiny.gguf", "q8_0"))
    ids = torch.tensor([encode(TALE)])
    losses = [
        F.cross_entropy(logits_of(model, ids)[0, :-1], ids[0, 1:]).item()
        for model in (load_plain("tiny", device="cpu"), load_plain(ckpt=tmp_path / "tiny.gguf", device="cpu"))
    ]
    assert math.exp(losses[0]) < 40  # it does know them
    assert abs(math.exp(losses[1] - losses[0]) - 1) < 0.005
    assert (tmp_path / "tiny.gguf").stat().st_size < 0.32 * sum(4 * p.numel() for p in load_plain("tiny").parameters())


def test_a_width_that_8_bits_cannot_divide_takes_16(tmp_path):
    model = models.small_model()  # 48 wide
    save_checkpoint(model, tmp_path / "a.pt")
    export(Request(ModelSpec(ckpt=tmp_path / "a.pt"), "gguf", tmp_path / "a.gguf", "q8_0"))
    torch.testing.assert_close(
        logits_of(load_plain(ckpt=tmp_path / "a.gguf", device="cpu")), logits_of(model), atol=0.5, rtol=0
    )


@pytest.mark.parametrize("arrow", [Arrow("hf", "folder"), Arrow("gguf", "a.gguf"), Arrow("original", "a.safetensors")])
def test_a_separate_head_and_a_longer_table_come_back(arrow, tmp_path):
    model = models.small_model(GPTConfig(1, 2, 32, block_size=20, vocab_size=50304, tied=False))
    save_checkpoint(model, tmp_path / "a.pt")
    out = tmp_path / arrow.out
    export(Request(ModelSpec(ckpt=tmp_path / "a.pt"), arrow.format, out))
    back = load_plain(str(out), device="cpu") if arrow.format == "hf" else load_plain(ckpt=out, device="cpu")
    assert back.config == model.config
    torch.testing.assert_close(logits_of(back, IDX[:, :20]), logits_of(model, IDX[:, :20]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("config", "format", "out", "message"),
    [
        (GPTConfig(1, 2, 32, block_size=9, vocab_size=100), "hf", "a", "vocabulary of 100 tokens.*--format nanogpt"),
        (GPTConfig(1, 2, 32, block_size=9, vocab_size=100), "gguf", "a.gguf", "vocabulary of 100 tokens"),
        (
            GPTConfig(1, 2, 32, block_size=9, vocab_size=99, tied=False),
            "nanogpt",
            "b.pt",
            "a separate output head.*--format hf",
        ),
        (GPTConfig(1, 2, 32, 9, 99, layer_norm_epsilon=1e-6), "nanogpt", "b.pt", "layer_norm_epsilon of 1e-06"),
        (GPTConfig(1, 2, 32, block_size=9, vocab_size=99), "original", "b.pt", "2 heads.*end in .safetensors"),
    ],
)
def test_what_a_format_cannot_tell_is_refused(config, format, out, message, tmp_path):
    save_checkpoint(models.small_model(config), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=message):
        export(Request(ModelSpec(ckpt=tmp_path / "a.pt"), format, tmp_path / out))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"peft"}))
def test_the_bundled_model_goes_out_in_every_format(format, tmp_path):
    out = tmp_path / ("a.gguf" if format == "gguf" else "a" if format == "hf" else "a.safetensors")
    export(Request(ModelSpec("tiny"), format, out))
    back = load_plain(str(out), device="cpu") if format == "hf" else load_plain(ckpt=out, device="cpu")
    idx = torch.tensor([encode(TALE[:200])])
    torch.testing.assert_close(
        logits_of(back, idx), logits_of(load_plain("tiny", device="cpu"), idx), atol=1e-5, rtol=0
    )
