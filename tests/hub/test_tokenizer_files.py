"""A model for another tokenizer than GPT-2's is recognized by its files. Only its use with text is refused."""

import json
import shutil

import pytest
import torch

from gpt2cli import SamplingConfig, generate, load, tokenizer
from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.metadata import read_metadata
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.quantized_file import quantize_model
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.config import VOCAB_SIZE, GPTConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.export.huggingface import _tokenizer
from gpt2cli.export.request import Request
from gpt2cli.export.write import export
from gpt2cli.hub.tokenizer_files import MERGES_SHA256, TOKENS_SHA256, read_tokenizer
from tests import models

CONFIG = GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=16, vocab_size=VOCAB_SIZE)
FEW = GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=16, vocab_size=65)
GREEDY = SamplingConfig(max_new_tokens=2, temperature=0)
VOCABULARY = tokenizer.vocabulary()
SHIFTED = {token: (number + 1000) % 50256 if number < 50256 else number for token, number in VOCABULARY.items()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return models.save_hub_directory(models.small_model(CONFIG), tmp_path_factory.mktemp("plain"))


@pytest.fixture
def directory(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "model")


def fast(**changes):
    content = _tokenizer()
    content["model"] |= changes
    return content


def put(directory, **files):
    """Write files whose names have __ for the dot: JSON, or text."""
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (directory / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return directory


APART = [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "add_prefix_space": False}]
OTHERS = {
    "a permuted vocabulary": {"vocab__json": SHIFTED, "merges__txt": "\n".join(["#version: 0.2", *tokenizer.merges()])},
    "a fast tokenizer alone": {"tokenizer__json": fast(vocab=SHIFTED)},
    "other merges": {"vocab__json": VOCABULARY, "merges__txt": "\n".join(tokenizer.merges()[::-1])},
    "merges alone": {"merges__txt": "#version: 0.2\na b\n"},
    "other merges in the fast one": {"tokenizer__json": fast(merges=tokenizer.merges()[:-1])},
    "fewer tokens": {"vocab__json": dict(list(VOCABULARY.items())[:30_000])},
    "unigrams": {"tokenizer__json": {"model": {"type": "Unigram", "vocab": [["a", -1.0]]}}},
    "a text changed first": {"tokenizer__json": _tokenizer() | {"normalizer": {"type": "Lowercase"}}},
    "words in one piece": {"tokenizer__json": _tokenizer() | {"pre_tokenizer": None}},
    "digits apart": {"tokenizer__json": _tokenizer() | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": APART}}},
    "no pattern": {"tokenizer__json": _tokenizer() | {"pre_tokenizer": {"type": "ByteLevel", "use_regex": False}}},
    "ends of words": {"tokenizer__json": fast(end_of_word_suffix="</w>")},
    "words of BERT's kind": {"tokenizer__json": fast(type="WordPiece")},
    "SentencePiece": {"spiece__model": "binary"},
    "BERT's": {"vocab__txt": "[PAD]\n[UNK]"},
    "a class": {"tokenizer_config__json": {"tokenizer_class": "T5Tokenizer"}},
    "added tokens among GPT-2's": {"added_tokens__json": {"<pad>": 0}},
    "another end": {"tokenizer_config__json": {"added_tokens_decoder": {"50256": {"content": "</s>"}}}},
    "no JSON": {"vocab__json": "{"},
    "no object": {"tokenizer__json": "[]"},
    "no numbers": {"vocab__json": {"a": "b"}},
    "deep": {"tokenizer__json": "[" * 100_000},
}


def test_the_digests_are_those_of_the_tokenizer_that_reads_texts():
    from hashlib import sha256

    tokens = sorted(VOCABULARY, key=VOCABULARY.__getitem__)
    assert sha256("\n".join(tokens).encode()).hexdigest() == TOKENS_SHA256
    assert sha256("\n".join(tokenizer.merges()).encode()).hexdigest() == MERGES_SHA256


@pytest.mark.parametrize(
    "splitter",
    [
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},  # as the Hub has had it since 2019
        {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True},
        {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}]},
    ],
)
def test_ways_to_say_gpt2s_pattern(tmp_path, splitter):
    fields = {"pre_tokenizer": splitter, "normalizer": {"type": "Sequence", "normalizers": []}}
    assert read_tokenizer(put(tmp_path, tokenizer__json=_tokenizer() | fields)).other is None


@pytest.mark.parametrize("name", OTHERS)
def test_another_tokenizer_is_refused_for_text_alone(directory, name):
    put(directory, **OTHERS[name])
    assert read_tokenizer(directory).other is not None
    with pytest.raises(CheckpointError, match=r"made for another tokenizer \(.*GPT-2's alone"):
        load_plain(str(directory), for_text=True)
    model = load_plain(str(directory), device="cpu")
    assert model(torch.zeros(1, 1, dtype=torch.long)).shape == (1, 1, VOCAB_SIZE)
    with pytest.raises(CheckpointError, match="made for another tokenizer"):
        generate(model, "Hello world", GREEDY)


def test_the_packed_model_knows_too_and_so_does_the_file_beside_its_tokenizer(directory):
    put(directory, **OTHERS["a permuted vocabulary"])
    with pytest.raises(CheckpointError, match="made for another tokenizer"):
        generate(load(str(directory), device="cpu", precision="fp32"), "Hello world", GREEDY)
    with pytest.raises(CheckpointError, match="made for another tokenizer"):
        load_plain(ckpt=directory / "model.safetensors", for_text=True)


def test_gpt2s_own_files_are_its_own(directory, tmp_path):
    export(Request(ModelSpec(str(directory)), "hf", tmp_path / "out"))
    for names in (("tokenizer.json",), ("vocab.json", "merges.txt"), ("tokenizer_config.json",)):
        some = tmp_path / names[0].partition(".")[0]
        some.mkdir()
        for name in names:
            shutil.copy(tmp_path / "out" / name, some)
        assert read_tokenizer(some).other is None
        assert read_tokenizer(some).added == ()
    notes = []
    model = load_plain(str(tmp_path / "out"), for_text=True, progress=notes.append)
    assert notes == []
    assert generate(model, "Hello", GREEDY) is not None


def test_what_the_real_tokenizers_write_is_told(directory, tmp_path):
    transformers = pytest.importorskip("transformers")
    export(Request(ModelSpec(str(directory)), "hf", tmp_path / "out"))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    theirs.save_pretrained(tmp_path / "again")
    assert read_tokenizer(tmp_path / "again").other is None
    theirs.add_tokens(["<|user|>", "<|bot|>"])
    theirs.save_pretrained(tmp_path / "added")
    assert read_tokenizer(tmp_path / "added").added == ("<|user|>", "<|bot|>")
    own = theirs.train_new_from_iterator(["a few words of one's own"] * 9, 300)
    own.save_pretrained(tmp_path / "own")
    assert read_tokenizer(tmp_path / "own").other is not None


@pytest.mark.parametrize("kind", ["added_tokens__json", "tokenizer_config__json", "vocab__json"])
def test_tokens_besides_gpt2s_are_told(tmp_path, kind):
    model = models.small_model(GPTConfig(1, 1, 8, block_size=16, vocab_size=50259))
    added = {"<|user|>": 50257, "<|bot|>": 50258}
    decoder = {"added_tokens_decoder": {str(number): {"content": token} for token, number in added.items()}}
    content = {"added_tokens__json": added, "tokenizer_config__json": decoder, "vocab__json": VOCABULARY | added}[kind]
    directory = put(models.save_hub_directory(model, tmp_path / "model"), **{kind: content})
    notes = []
    load_plain(str(directory), for_text=True, progress=notes.append)
    [note] = notes
    assert "2 tokens besides GPT-2's ('<|user|>', '<|bot|>')" in note.text


def test_a_padded_table_is_gpt2s_and_a_much_longer_one_is_told(tmp_path):
    for rows, told in ((50304, False), (51200, False), (64000, True)):
        model = models.small_model(GPTConfig(1, 1, 8, block_size=16, vocab_size=rows))
        save_checkpoint(model, tmp_path / "a.pt")
        notes = []
        load_plain(ckpt=tmp_path / "a.pt", for_text=True, progress=notes.append)
        assert any("no file says which tokenizer" in note.text for note in notes) == told


def test_fewer_rows_are_for_another_tokenizer_and_still_a_model(tmp_path):
    model = models.small_model(FEW)
    torch.save(models.nanogpt_checkpoint(model), tmp_path / "char.pt")
    idx = torch.arange(16)[None]
    with pytest.raises(
        CheckpointError, match=r"char\.pt was made for another tokenizer \(its vocabulary has 65 tokens"
    ):
        load_plain(ckpt=tmp_path / "char.pt", for_text=True)
    with pytest.raises(CheckpointError, match="65 tokens"):
        generate(load_plain(ckpt=tmp_path / "char.pt", device="cpu"), "A", GREEDY)
    for format in ("nanogpt", "gpt2cli"):
        out = tmp_path / f"{format}.pt"
        export(Request(ModelSpec(ckpt=tmp_path / "char.pt"), format, out))
        with torch.no_grad():
            torch.testing.assert_close(load_plain(ckpt=out, device="cpu")(idx), model(idx))


def test_exports_with_a_tokenizer_are_refused_and_copies_remember(directory, tmp_path):
    put(directory, **OTHERS["a fast tokenizer alone"])
    for format, name in (("hf", "out"), ("gguf", "out.gguf")):
        with pytest.raises(CheckpointError, match="needs another tokenizer than GPT-2's"):
            export(Request(ModelSpec(str(directory)), format, tmp_path / name))
        assert not (tmp_path / name).exists()
    export(Request(ModelSpec(str(directory)), "gpt2cli", tmp_path / "a.pt"))
    quantize_model(ModelSpec(str(directory)), 8, tmp_path / "b.safetensors")
    for name in ("a.pt", "b.safetensors"):
        assert "other tokens" in read_metadata(tmp_path / name).provenance["other_tokenizer"]
        with pytest.raises(CheckpointError, match="made for another tokenizer"):
            load_plain(ckpt=tmp_path / name, for_text=True)


@pytest.mark.parametrize("change", ["none", "tokens", "kind"])
def test_a_gguf_file_is_told_by_its_own_vocabulary(tmp_path, monkeypatch, change):
    from gpt2cli.export import gguf_file

    if change == "tokens":
        monkeypatch.setattr(gguf_file.tokenizer, "vocabulary", lambda: SHIFTED)
    if change == "kind":
        import gguf

        monkeypatch.setattr(gguf.GGUFWriter, "add_tokenizer_model", lambda self, name: self.add_string(KIND, "llama"))
    save_checkpoint(models.small_model(CONFIG), tmp_path / "a.pt")
    export(Request(ModelSpec(ckpt=tmp_path / "a.pt"), "gguf", tmp_path / "a.gguf"))
    if change == "none":
        assert load_plain(ckpt=tmp_path / "a.gguf", for_text=True).origin.other_tokenizer is None
    else:
        with pytest.raises(CheckpointError, match="made for another tokenizer"):
            load_plain(ckpt=tmp_path / "a.gguf", for_text=True)


KIND = "tokenizer.ggml.model"


def test_an_adapter_with_a_tokenizer_of_its_own(plain, tmp_path):
    from gpt2cli.checkpoints.save_adapter import save_adapter
    from gpt2cli.config import LoRAConfig
    from gpt2cli.model.lora import add_lora, lora_state

    model = models.small_model(CONFIG)
    add_lora(model, LoRAConfig(2))
    save_adapter(tmp_path / "adapter", lora_state(model), LoRAConfig(2), base=str(plain))
    assert load_plain(ckpt=tmp_path / "adapter", for_text=True).origin.other_tokenizer is None
    put(tmp_path / "adapter", **OTHERS["a fast tokenizer alone"])
    with pytest.raises(CheckpointError, match="adapter was made for another tokenizer"):
        load_plain(ckpt=tmp_path / "adapter", for_text=True)


def test_every_command_that_reads_text_refuses_before_it_makes_anything(run, home, tmp_path):
    torch.save(models.nanogpt_checkpoint(models.small_model(FEW)), tmp_path / "char.pt")
    for words in (
        ["generate", "A"],
        ["chat", "--prompt", "A"],
        ["evaluate"],
        ["finetune", "--out", str(tmp_path / "out.pt"), "--run-dir", str(tmp_path / "run")],
    ):
        done = run(*words, "--ckpt", str(tmp_path / "char.pt"))
        assert done.returncode == 4, done
        assert "made for another tokenizer" in done.stderr
        assert done.stdout == ""
    assert {path.name for path in tmp_path.iterdir()} <= {"char.pt", "home", "hf"}
    assert not any(path.is_file() for path in home.rglob("*"))
