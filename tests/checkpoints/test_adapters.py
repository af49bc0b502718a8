"""Adapters go to PEFT and come from it with the same logits; what does not fit or cannot be applied is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt2cli.checkpoints.adapters import read_adapter
from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.metadata import read_metadata
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.save_adapter import save_adapter
from gpt2cli.config import GPTConfig, LoRAConfig
from gpt2cli.errors import CheckpointError, ResourceError, UsageError
from gpt2cli.export.request import Request
from gpt2cli.export.write import export
from gpt2cli.model.lora import add_lora, lora_state
from tests import models

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=37, vocab_size=500)
IDX = torch.arange(20).reshape(2, 10) * 31 % 500
LORA = LoRAConfig(rank=4, alpha=6.0)
C_ATTN = "base_model.model.transformer.h.0.attn.c_attn"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return models.save_hub_directory(models.small_model(CONFIG), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapted():
    model = models.small_model(CONFIG)
    add_lora(model, LORA)
    with torch.no_grad():
        for tensor in lora_state(model).values():
            tensor.normal_(std=0.1)
    return model


@pytest.fixture
def adapter(adapted, base, tmp_path):
    save_adapter(tmp_path / "adapter", lora_state(adapted), LORA, base=str(base), template={"a": "b"})
    return tmp_path / "adapter"


def transformers_model():
    transformers = pytest.importorskip("transformers")
    config = models.hub_config(CONFIG) | {"bos_token_id": 0, "eos_token_id": 0}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**config)).eval()
    state = models.hub_state(models.small_model(CONFIG), "transformer.", buffers=False)
    theirs.load_state_dict(state, strict=False)  # without the head, which is the embedding
    return theirs


def peft_adapter(directory, **options):
    """A random adapter saved by PEFT, and the logits that it gives."""
    peft = pytest.importorskip("peft")
    theirs = peft.get_peft_model(transformers_model(), peft.LoraConfig(**options)).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name or parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        logits = theirs(IDX).logits
    theirs.save_pretrained(directory)
    return logits


def logits_of(model):
    with torch.no_grad():
        return model(IDX)


def change_config(directory, **fields):
    file = directory / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def change_tensors(directory, change):
    file = directory / "adapter_model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    save_file(tensors, file)


def test_peft_opens_ours(adapter, adapted):
    peft = pytest.importorskip("peft")
    theirs = peft.PeftModel.from_pretrained(transformers_model(), adapter)
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDX).logits, logits_of(adapted), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name_the_base", [True, False])
def test_ours_comes_back_merged(adapter, adapted, base, name_the_base):
    loaded = load_plain(str(base) if name_the_base else None, ckpt=adapter, device="cpu")
    torch.testing.assert_close(logits_of(loaded), logits_of(adapted), atol=1e-5, rtol=0)
    assert not lora_state(loaded)
    assert not loaded.training


@pytest.mark.parametrize(
    "options",
    [
        {"r": 4, "lora_alpha": 6, "target_modules": ["c_attn", "c_proj", "c_fc"], "lora_dropout": 0.1},
        {"r": 3, "task_type": "CAUSAL_LM"},  # PEFT's own choice for GPT-2: c_attn alone
        {"r": 4, "use_rslora": True, "target_modules": ["attn.c_proj", "c_fc"], "layers_to_transform": [1]},
        {"r": 2, "init_lora_weights": "gaussian", "target_modules": r".*mlp\.c_(fc|proj)"},
        {"r": 2, "target_modules": ["c_attn", "c_fc"], "rank_pattern": {"c_fc": 5, r"h\.1\.attn\.c_attn": 3}},
        {"r": 2, "target_modules": ["c_attn", "c_fc"], "alpha_pattern": {"c_fc": 3, r"^transformer.h.1.*c_attn": 1}},
        {"r": 4, "use_rslora": True, "rank_pattern": {"0.attn.c_attn": 2}, "alpha_pattern": {"(c_attn|c_fc)": 3.5}},
        {"r": 3, "lora_alpha": 6, "use_dora": True, "target_modules": ["c_attn", "c_proj", "c_fc"]},
        {"r": 2, "bias": "all", "target_modules": ["c_attn"]},
        {"r": 2, "bias": "lora_only", "target_modules": ["c_attn", "c_fc"]},
    ],
    ids=["all", "default", "rslora", "regex", "ranks", "alphas", "both", "dora", "all biases", "their biases"],
)
def test_pefts_comes_in(base, tmp_path, options):
    expected = peft_adapter(tmp_path / "adapter", fan_in_fan_out=True, **options)
    loaded = load_plain(str(base), ckpt=tmp_path / "adapter", device="cpu")
    torch.testing.assert_close(logits_of(loaded), expected, atol=1e-5, rtol=0)


def test_the_base_may_be_a_checkpoint_file(adapter, adapted, base):
    file = str(base / "model.safetensors")
    by_option = load_plain(file, ckpt=adapter, device="cpu")
    change_config(adapter, base_model_name_or_path=file)
    for loaded in (by_option, load_plain(ckpt=adapter, device="cpu")):
        torch.testing.assert_close(logits_of(loaded), logits_of(adapted), atol=1e-5, rtol=0)


def test_the_merge_is_rounded_once(adapter, base, tmp_path, adapted):
    half = {name: tensor.half() for name, tensor in load_file(base / "model.safetensors").items()}
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text((base / "config.json").read_text())
    save_file(half, tmp_path / "half" / "model.safetensors")
    loaded = load_plain(str(tmp_path / "half"), ckpt=adapter, device="cpu")
    layer = adapted.h[0].attn.c_attn
    expected = half["h.0.attn.c_attn.weight"].t().float() + layer.update()
    assert torch.equal(loaded.h[0].attn.c_attn.weight, expected)


def test_the_base_file_stays_as_it_is(adapter, base):
    before = (base / "model.safetensors").read_bytes()
    load_plain(ckpt=adapter, device="cpu")
    assert (base / "model.safetensors").read_bytes() == before


def test_loading_draws_no_random_numbers(adapter):
    state = torch.get_rng_state()
    load_plain(ckpt=adapter, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)


def test_the_template_and_the_base_are_read_back(adapter, base):
    assert read_metadata(adapter).template == {"a": "b"}
    assert read_adapter(adapter).base == str(base)
    assert read_adapter(adapter).config == LORA
    change_config(adapter, base_model_name_or_path="gpt2", revision="0123456")
    assert read_adapter(adapter).base == "gpt2@0123456"


def test_peft_directories_have_no_template(tmp_path):
    peft_adapter(tmp_path, fan_in_fan_out=True)
    assert read_metadata(tmp_path).template is None


def test_writing_over_one_and_into_nowhere(adapted, adapter, tmp_path):
    config = LoRAConfig(rank=4, alpha=2.5)
    save_adapter(adapter, lora_state(adapted), config)
    assert read_adapter(adapter).config == config
    assert read_adapter(adapter).base is None
    assert sorted(file.name for file in adapter.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    with pytest.raises(ResourceError, match=r"cannot write .*: choose another place"):
        save_adapter(tmp_path / "no" / "adapter", lora_state(adapted), config)


def test_a_base_must_be_named_somewhere(adapted, adapter):
    change_config(adapter, base_model_name_or_path=None)
    with pytest.raises(UsageError, match="does not say which model it adapts: name that as --model"):
        load_plain(ckpt=adapter)
    for name in ("/not/there", "~nobody-of-this-name/x", "a b"):
        change_config(adapter, base_model_name_or_path=name)
        with pytest.raises(CheckpointError, match="which is no model here: name it as --model"):
            load_plain(ckpt=adapter, offline=True)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GPTConfig(2, 3, 24, block_size=37, vocab_size=500), r"c_attn is \(72, 24\) here, \(144, 48\) there"),
        (GPTConfig(1, 3, 48, block_size=37, vocab_size=500), r"this one has no h\.1\.attn\.c_attn"),
    ],
)
def test_an_adapter_for_another_base_is_refused(adapter, tmp_path, config, message):
    other = models.save_hub_directory(models.small_model(config), tmp_path / "other")
    with pytest.raises(CheckpointError, match=f"an adapter for another base: .*{message}"):
        load_plain(str(other), ckpt=adapter)


def test_a_pattern_for_each_layer_of_a_large_model_opens(adapter):
    modules = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    alphas = {f"transformer.h.{block}.{module}": 8 for block in range(48) for module in modules}
    before = load_plain(ckpt=adapter).state_dict()["h.0.attn.c_attn.weight"]
    change_config(
        adapter, alpha_pattern=alphas | {r".*h\.(0|1|2|3|4|5|6|7|8|9|10|11)\.attn\..*": 9}, init_lora_weights=None
    )
    assert not load_plain(ckpt=adapter).state_dict()["h.0.attn.c_attn.weight"].equal(before)


@pytest.mark.parametrize(
    "fields",
    [
        {"bias": "some"},
        {"lora_bias": True},
        {"modules_to_save": ["wte"]},
        {"alpha_pattern": {"(a*)*b": 8}},
        {"alpha_pattern": {".*.*.*.*": 8}},
        {"alpha_pattern": {"c_(attn": 8}},
        {"alpha_pattern": {"(.|.|.)" * 26 + "~": 8}},  # 3^26 ways
        {"alpha_pattern": {f"x{number}": 8 for number in range(1_000)}},
        {"rank_pattern": {f"x{number}": 8 for number in range(1_000)}},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": {"a": 1}},
        {"peft_type": "IA3"},
        {"layer_replication": [[0, 2]]},
        {"trainable_token_indices": [1]},
        {"a_thing_of_tomorrow": 3},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_cannot_be_applied_is_refused_by_name(adapter, fields):
    change_config(adapter, **fields)
    with pytest.raises(CheckpointError, match=f"{next(iter(fields))} is .*merge it with PEFT first"):
        load_plain(ckpt=adapter)


@pytest.mark.parametrize(
    "fields",
    [
        *({"r": value} for value in (0, -1, True, "4", None, 2**40, 4.0)),
        *({"rank_pattern": value} for value in ([1], {"c_attn": 0}, {"c_attn": "4"})),
        *({"alpha_pattern": value} for value in ("c_attn", {"c_attn": -1}, {"c_attn": None})),
        *({"lora_alpha": value} for value in (0, -1.0, True, "6", None, float("nan"), float("inf"), [6])),
        *({"base_model_name_or_path": value} for value in (3, ["gpt2"], "a\0b", "a\x1b[2J")),
    ],
    ids=str,
)
def test_bad_values_are_refused_by_name(adapter, fields):
    change_config(adapter, **fields)
    with pytest.raises(CheckpointError, match=rf"adapter_config\.json: {next(iter(fields))} is .*save the adapter"):
        load_plain(ckpt=adapter)


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"])
def test_what_cannot_be_merged_is_not_to_be_merged_with_peft(adapter, kind):
    change_config(adapter, peft_type=kind)
    with pytest.raises(CheckpointError, match=f"peft_type is '{kind}', which cannot be merged into a model: use it"):
        load_plain(ckpt=adapter)


def test_dora_needs_a_magnitude_for_each_row(adapter):
    change_config(adapter, use_dora=True)
    with pytest.raises(CheckpointError, match=r"h\.\d\.\S+ has no magnitude for each row"):
        load_plain(ckpt=adapter)
    change_tensors(adapter, add_magnitude)
    with pytest.raises(CheckpointError, match=r"h\.\d\.\S+ has no magnitude for each row"):
        load_plain(ckpt=adapter)


def test_an_adapter_in_a_directory_of_its_name(base, tmp_path):
    peft = pytest.importorskip("peft")
    theirs = peft.get_peft_model(transformers_model(), peft.LoraConfig(fan_in_fan_out=True), adapter_name="mine")
    theirs.save_pretrained(tmp_path / "saved")
    for how in ({"ckpt": tmp_path / "saved"}, {"model": str(tmp_path / "saved")}):
        with pytest.raises(UsageError, match=r"holds an adapter in a directory: give .*saved/mine as --ckpt"):
            load_plain(**how)
    assert load_plain(str(base), ckpt=tmp_path / "saved" / "mine").config == CONFIG


def test_an_adapter_is_given_as_a_directory_and_as_ckpt(adapter):
    with pytest.raises(UsageError, match="the file of an adapter: give its directory as --ckpt"):
        load_plain(ckpt=adapter / "adapter_model.safetensors")
    with pytest.raises(UsageError, match="holds an adapter: give it as --ckpt"):
        load_plain(str(adapter))


def test_a_base_of_a_known_name_is_not_the_file_of_that_name(adapter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("tiny", "gpt2"):
        (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(CheckpointError, match="an adapter for another base"):
        load_plain("tiny", ckpt=adapter)


def test_more_than_plain_lora_is_not_exported_as_it(base, tmp_path):
    for name, options in (("plain", {}), ("dora", {"use_dora": True}), ("alphas", {"alpha_pattern": {"c_attn": 3}})):
        peft_adapter(tmp_path / name, fan_in_fan_out=True, **options)
    assert read_adapter(tmp_path / "plain").is_plain
    for name in ("dora", "alphas"):
        with pytest.raises(CheckpointError, match="more than plain LoRA"):
            export(Request(ModelSpec(str(base), str(tmp_path / name)), "peft", tmp_path / "out"))


def cut_rank(tensors):
    tensors[f"{C_ATTN}.lora_A.weight"] = torch.zeros(5, 48)


def drop_one(tensors):
    del tensors[f"{C_ATTN}.lora_B.weight"]


def add_embedding(tensors):
    tensors["base_model.model.transformer.wte.weight"] = torch.zeros(500, 48)


def add_magnitude(tensors):
    tensors[f"{C_ATTN}.lora_magnitude_vector"] = torch.zeros(144)


def spoil(tensors):
    tensors[f"{C_ATTN}.lora_A.weight"][0, 0] = torch.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut_rank, r"c_attn\.lora_A\.weight is \(5, 48\), not of rank 4"),
        (drop_one, r"h\.0\.attn\.c_attn\.lora_B is missing"),
        (add_embedding, r"wte\.weight is no low-rank matrix"),
        (add_magnitude, r"lora_magnitude_vector is no low-rank matrix"),
        (spoil, r"c_attn\.lora_A\.weight has values that are not finite"),
        (dict.clear, "holds no tensors"),
    ],
)
def test_tensors_that_do_not_fit_are_named(adapter, change, message):
    change_tensors(adapter, change)
    with pytest.raises(CheckpointError, match=message):
        load_plain(ckpt=adapter)


def test_a_pickle_is_refused(adapter):
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no adapter_model\.safetensors"):
        load_plain(ckpt=adapter)
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(CheckpointError, match="in a pickle only, refused"):
        load_plain(ckpt=adapter)


def test_damaged_files_are_refused(adapter):
    weights, config = adapter / "adapter_model.safetensors", adapter / "adapter_config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(CheckpointError, match="is truncated"):
        load_plain(ckpt=adapter)
    weights.write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match="looks like HTML"):
        load_plain(ckpt=adapter)
    weights.write_bytes(whole)
    config.write_text("{")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json is not JSON"):
        load_plain(ckpt=adapter)
    config.unlink()
    with pytest.raises(CheckpointError, match=r"holds no adapter_config\.json"):
        load_plain(ckpt=adapter)


def test_a_file_and_a_model_are_still_one_too_many(base):
    with pytest.raises(UsageError, match="only if --ckpt is"):
        load_plain(str(base), ckpt=base / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.int8, torch.bool])
def test_matrices_of_other_types_are_refused(adapter, dtype):
    change_tensors(adapter, lambda tensors: tensors.update({name: t.to(dtype) for name, t in tensors.items()}))
    with pytest.raises(CheckpointError, match=r"lora_[AB]\.weight"):
        load_plain(ckpt=adapter)


@pytest.mark.parametrize("value", ["A" * 1_000_000, [[1]] * 1_000, {"a": 1}, 10**100], ids=lambda v: type(v).__name__)
def test_values_are_shown_shortly(adapter, value):
    for field in ("peft_type", "r", "lora_alpha", "base_model_name_or_path", "bias"):
        whole = (adapter / "adapter_config.json").read_text()
        change_config(adapter, **{field: value})
        with pytest.raises(CheckpointError) as error:
            load_plain(ckpt=adapter, offline=True)
        assert len(str(error.value)) < 1_000
        (adapter / "adapter_config.json").write_text(whole)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "a/" * 3000, "a\0b", "\ud800", "a\nb"], ids=range(6))
def test_a_base_that_no_file_can_be_named_is_refused(adapter, name):
    change_config(adapter, base_model_name_or_path=name)
    with pytest.raises(CheckpointError, match=r"base_model_name_or_path|is no model here") as error:
        load_plain(ckpt=adapter, offline=True)
    assert len(str(error.value)) < 1_000
    assert "\n" not in str(error.value)
