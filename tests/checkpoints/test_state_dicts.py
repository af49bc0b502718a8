"""State dicts as training programs leave them: wrapped, under other keys, with heads beside, two in one, in part."""

import json

import pytest
import torch
from safetensors.torch import save_file, save_model

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.config import GPTConfig
from gpt2cli.errors import CheckpointError
from tests import models

IDX = torch.arange(20).reshape(2, 10) * 31 % 500
CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=37, vocab_size=500)
ARGS = {"n_layer": 2, "n_head": 3, "n_embd": 48}


@pytest.fixture(scope="module")
def model():
    return models.small_model(CONFIG)


def nano(model):
    """nanoGPT's names, with the head."""
    state = {f"transformer.{name}": tensor for name, tensor in model.state_dict().items()}
    return state | {"lm_head.weight": state["transformer.wte.weight"]}


def loaded(tmp_path, content, notes=None, name="a.pt", **options):
    torch.save(content, tmp_path / name, **options)
    told = [] if notes is None else notes
    return load_plain(ckpt=tmp_path / name, device="cpu", progress=lambda note: told.append(note.text))


def assert_same(loaded, model, atol=1e-6):
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDX), model(IDX), atol=atol, rtol=0)


def in_blocks(word):
    return lambda name: name.replace("h.0.", f"h.0.{word}.").replace("h.1.", f"h.1.{word}.")


@pytest.mark.parametrize(
    "rename",
    [
        in_blocks("_orig_mod"),
        in_blocks("_checkpoint_wrapped_module"),
        in_blocks("_fsdp_wrapped_module._checkpoint_wrapped_module"),
        lambda name: name.replace("attn.", "attn._orig_mod.module."),
        *(
            lambda name, prefix=prefix: prefix + name
            for prefix in (
                *("_fsdp_wrapped_module.", "_forward_module.", "module._orig_mod.", "_orig_mod.module.model."),
                *("pretrained_model.", "net.", "generator.gpt.", "backbone.module.", "model.model.lm."),
            )
        ),
        lambda name: "wrapped." + name.removeprefix("transformer."),
    ],
)
def test_wrappers_are_taken_off_wherever_they_are(model, tmp_path, rename):
    state = {rename(name): tensor for name, tensor in nano(model).items()}
    assert_same(loaded(tmp_path, {"model": state, "model_args": ARGS}), model)


@pytest.mark.parametrize(
    "wrap",
    [
        *(lambda state, key=key: {key: state} for key in ("net", "module", "model_state", "weights", "generator")),
        *(lambda state, key=key: {key: state} for key in ("ema", "some_name_of_mine")),
        lambda state: {"checkpoint": {"model": state, "step": 3}, "optimizer": {"state": {0: {"m": torch.ones(2)}}}},
        lambda state: {"model": state, "optimizer": {"exp_avg": torch.ones(3)}, "loss": torch.ones(())},
        lambda state: {"state": {"params": {"model": state}}, "loss": torch.ones(())},
        lambda state: {"model": state, "ema": {name: tensor + 1 for name, tensor in state.items()}},
    ],
)
def test_the_state_dict_is_found_under_its_key(model, tmp_path, wrap):
    assert_same(loaded(tmp_path, wrap(nano(model)) | {"model_args": ARGS}), model)


def test_keys_are_told_where_there_is_no_state_dict_or_more_than_one(model, tmp_path):
    one, two = nano(model), nano(models.small_model(CONFIG, seed=1))
    for content, says in (
        ({"epoch": 3, "config": {"a": 1}}, r"holds no state dict \(its keys: 'epoch', 'config'\)"),
        ({"teacher": one, "pupil": two}, r"more than one state dict \(its keys: 'teacher', 'pupil'\)"),
    ):
        with pytest.raises(CheckpointError, match=says):
            loaded(tmp_path, content)


@pytest.mark.parametrize("prefixes", [("model.", ""), ("actor.", "critic."), ("", "ema."), ("module.", "old.")])
@pytest.mark.parametrize("whole", [True, False])
def test_two_models_in_one_file_are_refused(model, tmp_path, prefixes, whole):
    one, two = nano(model), nano(models.small_model(CONFIG, seed=1))
    second = two if whole else {name: tensor for name, tensor in two.items() if ".h.0." in name}
    state = {prefixes[0] + name: tensor for name, tensor in one.items()}
    state |= {prefixes[1] + name: tensor for name, tensor in second.items()}
    with pytest.raises(CheckpointError, match=r"a\.pt: it holds more than one model"):
        loaded(tmp_path, {"model": state, "model_args": ARGS})


def test_one_model_under_two_names_is_one(model, tmp_path):
    state = {prefix + name: tensor for name, tensor in nano(model).items() for prefix in ("model.", "")}
    assert_same(loaded(tmp_path, {"model": state, "model_args": ARGS}), model)


@pytest.mark.parametrize(
    "head",
    [
        {"v_head.summary.weight": (1, 48), "v_head.summary.bias": (1,)},
        {"score.weight": (3, 48)},
        {"multiple_choice_head.summary.weight": (1, 48)},
        {"lm_head.decoder.weight": (500, 48)},
        {"classifier.weight": (2, 48), "classifier.bias": (2,)},
        {"reward_head.0.weight": (4, 4)},
    ],
    ids=lambda head: next(iter(head)),
)
def test_a_head_beside_the_language_models_is_left_out_and_told(model, tmp_path, head):
    notes = []
    extra = {name: torch.ones(shape) for name, shape in head.items()}
    assert_same(loaded(tmp_path, {"model": nano(model) | extra, "model_args": ARGS}, notes), model)
    [note] = notes
    assert "left out" in note
    assert all(f"'{name}'" in note for name in head)


def test_transformers_models_with_more_heads(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(**models.hub_config(CONFIG), bos_token_id=0, eos_token_id=0, pad_token_id=0)
    for kind in ("GPT2DoubleHeadsModel", "GPT2ForSequenceClassification", "GPT2ForTokenClassification"):
        theirs = getattr(transformers, kind)(config).eval()
        theirs.save_pretrained(tmp_path / kind)
        plain = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / kind).eval()
        notes = []
        ours = load_plain(str(tmp_path / kind), device="cpu", progress=notes.append)
        with torch.no_grad():
            torch.testing.assert_close(ours(IDX), plain(IDX).logits, atol=1e-5, rtol=0)
        assert len(notes) == 1


@pytest.mark.parametrize("bias", [True, False])
def test_a_classifier_in_place_of_the_head_is_told(tmp_path, bias):
    model = models.small_model(GPTConfig(2, 2, 128, block_size=37, vocab_size=500))
    state = models.original_state(model, torch.zeros(2, 128)) | ({"out_head.bias": torch.zeros(2)} if bias else {})
    with pytest.raises(CheckpointError, match="a head of 2 outputs for a vocabulary of 500: a classifier") as caught:
        loaded(tmp_path, state)
    assert "save it again" not in str(caught.value)


def test_a_bias_of_the_head_is_still_refused(model, tmp_path):
    with pytest.raises(CheckpointError, match=r"lm_head\.bias is unknown"):
        loaded(tmp_path, {"model": nano(model) | {"lm_head.bias": torch.ones(500)}, "model_args": ARGS})


class Tied(torch.nn.Module):
    """nanoGPT's module tree, as far as saving goes."""

    def __init__(self, model):
        super().__init__()
        self.transformer = torch.nn.Module()
        for name, part in model.named_children():
            self.transformer.add_module(name, part)
        self.lm_head = torch.nn.Linear(48, 500, bias=False)
        self.lm_head.weight = model.wte.weight


def test_a_tied_model_of_which_safetensors_kept_the_head(tmp_path):
    model, notes = models.small_model(CONFIG), []
    save_model(Tied(model), str(tmp_path / "model.safetensors"))
    assert b'"transformer.wte.weight":"lm_head.weight"' in (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "config.json").write_text(json.dumps(models.hub_config(CONFIG)))
    for how in ({"ckpt": tmp_path / "model.safetensors"}, {"model": str(tmp_path)}):
        assert_same(load_plain(**how, device="cpu", progress=notes.append), model)
    assert notes == []


def test_a_head_without_an_embedding(model, tmp_path):
    state, notes = nano(model), []
    del state["transformer.wte.weight"]
    assert_same(loaded(tmp_path, {"model": state, "model_args": ARGS}, notes), model)
    assert "the head is taken for both" in notes[0]
    with pytest.raises(CheckpointError, match=r"has no matrix wte\.weight"):
        loaded(tmp_path, {"model": state, "model_args": ARGS | {"tie_word_embeddings": False}})


def test_the_format_of_torch_before_1_6(model, tmp_path):
    content = {"model": nano(model), "model_args": ARGS}
    assert_same(loaded(tmp_path, content, _use_new_zipfile_serialization=False), model)

    class Runs:
        def __reduce__(self):
            return print, ("ran",)

    with pytest.raises(CheckpointError, match="a pickle that would run code, refused"):
        loaded(tmp_path, Runs(), _use_new_zipfile_serialization=False)


def test_one_part_of_several_is_told(model, tmp_path):
    save_file({"wte.weight": torch.zeros(2, 2)}, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="is one of 2 parts of a model: give its directory as --model"):
        load_plain(ckpt=tmp_path / "model-00001-of-00002.safetensors")
    torch.save({"model": nano(model), "model_args": ARGS}, tmp_path / "a-00001-of-00001.pt")
    assert_same(load_plain(ckpt=tmp_path / "a-00001-of-00001.pt", device="cpu"), model)


def test_the_names_that_no_dialect_has_are_told(model, tmp_path):
    for state, odd in (
        (nano(model), "h.0.attn.qkv.weight"),
        (models.llms_from_scratch_state(model), "trf_blocks.0.att.qkv_proj.weight"),
    ):
        state = {name.replace("c_attn", "qkv").replace("W_query", "qkv_proj"): t for name, t in state.items()}
        with pytest.raises(CheckpointError) as caught:
            loaded(tmp_path, state)
        assert odd in str(caught.value)
        assert "emb" not in str(caught.value)
        assert "wte" not in str(caught.value)


@pytest.mark.parametrize("norm", [("scale", "shift"), ("weight", "bias")])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_the_fused_variant_of_llms_from_scratch(tmp_path, norm, qkv_bias):
    model = models.small_model(CONFIG)
    state = models.llms_from_scratch_state(model)
    for block in range(2):
        for leaf in ("weight", "bias"):
            names = [f"trf_blocks.{block}.att.W_{part}.{leaf}" for part in ("query", "key", "value")]
            fused = torch.cat([state.pop(name) for name in names])
            if leaf == "weight" or qkv_bias:
                state[f"trf_blocks.{block}.att.qkv.{leaf}"] = fused
            state[f"trf_blocks.{block}.att.proj.{leaf}"] = state.pop(f"trf_blocks.{block}.att.out_proj.{leaf}")
        del state[f"trf_blocks.{block}.att.mask"]
        if not qkv_bias:
            with torch.no_grad():
                model.h[block].attn.c_attn.bias.zero_()
    state = {name.replace("scale", norm[0]).replace("shift", norm[1]): tensor for name, tensor in state.items()}
    assert_same(loaded(tmp_path, {"model_state_dict": state, "config": {"n_heads": 3}}), model)
