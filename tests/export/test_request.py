"""What cannot be is refused before anything is loaded, and nothing that is there is lost."""

import json
import os
import stat
from pathlib import Path

import pytest
from safetensors.torch import save_file

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.checkpoints.save_adapter import save_adapter
from gpt2cli.config import GPTConfig, LoRAConfig
from gpt2cli.errors import CheckpointError, GPT2Error, NetworkError, ResourceError, UsageError
from gpt2cli.export import huggingface, write
from gpt2cli.export.card import write_card
from gpt2cli.export.formats import FORMATS, HUB_FILES
from gpt2cli.export.request import Request
from gpt2cli.export.write import export
from gpt2cli.model.lora import add_lora, lora_state
from gpt2cli.prompts import ALPACA
from tests import models

CONFIG = GPTConfig(n_layer=1, n_head=2, n_embd=32, block_size=16)


@pytest.fixture(scope="module")
def model():
    return models.small_model(CONFIG)


@pytest.fixture
def ckpt(model, tmp_path):
    save_checkpoint(model, tmp_path / "a.safetensors")
    return str(tmp_path / "a.safetensors")


@pytest.fixture
def adapter(tmp_path, ckpt):
    model = models.small_model(CONFIG)
    add_lora(model, LoRAConfig(rank=2))
    save_adapter(tmp_path / "adapter", lora_state(model), LoRAConfig(rank=2), base=ckpt)
    return str(tmp_path / "adapter")


def everything(directory):
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ckpt": None}, "say what to export"),
        ({"format": "onnx"}, "--format must be one of hf, gguf, peft"),
        ({"dtype": "int3"}, "--dtype must be one of f32"),
        ({"dtype": "q8_0"}, "--dtype q8_0 is not for --format hf: it takes f32, f16, bf16"),
        ({"format": "peft", "dtype": "f16"}, "an adapter is exported as it is"),
        ({"format": "gguf", "out": "b.bin"}, r"no name for gguf: let it end in \.gguf"),
        ({"format": "nanogpt", "out": "b"}, r"let it end in \.pt or \.safetensors"),
        ({"format": "nanogpt", "out": "b.pt", "push": "a/b"}, "--push takes the formats hf, gguf, peft"),
        ({"push": "gpt2"}, "--push takes owner/name"),
        ({"push": "a/b@c"}, "--push takes owner/name"),
        ({"push": "../x"}, "is not a model"),
        ({"out": "a.safetensors"}, "is the model to export"),
        ({"out": ""}, "is the model to export|holds"),
    ],
)
def test_usage(ckpt, tmp_path, fields, message):
    before = everything(tmp_path)
    fields = {"ckpt": ckpt, "format": "hf", "out": "out"} | fields
    request = Request(ModelSpec(ckpt=fields.pop("ckpt")), fields.pop("format"), tmp_path / fields.pop("out"), **fields)
    with pytest.raises(UsageError, match=message):
        export(request)
    assert everything(tmp_path) == before


def test_without_a_token_there_is_no_push(ckpt, home, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(ModelSpec, "read", None)  # the model is not loaded
    request = Request(ModelSpec(ckpt=ckpt), "hf", tmp_path / "out", push="a/b")
    with pytest.raises(NetworkError, match="no token to upload to a/b with: set HF_TOKEN"):
        export(request)
    for stored in (True, False):
        if stored:
            (tmp_path / "token").write_text("hf_secret")
        else:
            (tmp_path / "token").unlink()
            monkeypatch.setenv("HF_TOKEN", "hf_secret")
        request.check()


def test_offline_there_is_no_push(ckpt, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NetworkError, match="network is off"):
        export(Request(ModelSpec(ckpt=ckpt), "hf", tmp_path / "out", push="a/b"))
    assert not (tmp_path / "out").exists()


def test_a_directory_that_is_not_there(ckpt, tmp_path):
    with pytest.raises(ResourceError, match=r"there is no directory .*no: make it"):
        export(Request(ModelSpec(ckpt=ckpt), "hf", tmp_path / "no" / "out"))


@pytest.mark.parametrize("how", ["the same", "by a link", "another path", "in its directory", "around it", "its base"])
def test_an_export_never_writes_over_what_it_reads(ckpt, adapter, tmp_path, how):
    export(Request(ModelSpec(ckpt=ckpt), "hf", tmp_path / "source"))
    (tmp_path / "link").symlink_to(tmp_path / "source")
    source, out, format = {
        "the same": ("source", "source", "hf"),
        "by a link": ("source", "link", "hf"),
        "another path": ("link", "source/../source", "hf"),
        "in its directory": ("source", "source/model.safetensors", "nanogpt"),
        "around it": ("source/model.safetensors", "source", "hf"),
        "its base": ("adapter", "a.safetensors", "gpt2cli"),
    }[how]
    before = everything(tmp_path)
    named = (str(tmp_path / source), None) if how not in ("around it", "its base") else (None, str(tmp_path / source))
    with pytest.raises(UsageError, match="is the model to export: write elsewhere"):
        export(Request(ModelSpec(*named), format, tmp_path / out, force=True))
    assert everything(tmp_path) == before


def test_a_name_is_not_the_directory_that_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "tiny"
    for force in (False, True):
        export(Request(ModelSpec("tiny"), "hf", out, force=force))
    assert {path.name for path in out.iterdir()} == set(HUB_FILES)


@pytest.mark.parametrize("format", ["hf", "gguf", "peft"])
def test_an_earlier_export_goes_only_by_force(ckpt, adapter, tmp_path, format):
    out = tmp_path / ("out.gguf" if format == "gguf" else "out")
    request = Request(ModelSpec(ckpt=adapter if format == "peft" else ckpt), format, out)
    export(request)
    before = everything(tmp_path)
    with pytest.raises(UsageError, match="is there already: use --force"):
        export(request)
    assert everything(tmp_path) == before
    (out if out.is_file() else out / "README.md").write_bytes(b"damaged")
    export(Request(request.spec, format, out, force=True))
    after = everything(tmp_path)
    assert after.keys() == before.keys()
    assert {name: len(content) for name, content in after.items()} == {name: len(c) for name, c in before.items()}


@pytest.mark.parametrize("format", ["hf", "peft"])
def test_nobodys_directory_is_deleted(ckpt, adapter, tmp_path, format):
    (tmp_path / "mine").mkdir()
    request = Request(ModelSpec(ckpt=adapter), format, tmp_path / "mine", force=True)
    export(request)  # an empty one is welcome
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    before = everything(tmp_path)
    with pytest.raises(UsageError, match=r"holds thesis\.tex, which no export wrote"):
        export(request)
    (tmp_path / "mine" / "a.gguf").mkdir()
    with pytest.raises(UsageError, match="is a directory: name a file in it"):
        export(Request(ModelSpec(ckpt=ckpt), "gguf", tmp_path / "mine" / "a.gguf", force=True))
    with pytest.raises(UsageError, match="is a file, and hf is a directory"):
        export(Request(ModelSpec(ckpt=adapter), "hf", tmp_path / "mine" / "thesis.tex", force=True))
    assert everything(tmp_path) == before


def test_peft_is_for_adapters(ckpt, adapter, tmp_path):
    with pytest.raises(CheckpointError, match=r"was not made with --lora.*use --format hf"):
        export(Request(ModelSpec(ckpt=ckpt), "peft", tmp_path / "out"))
    with pytest.raises(UsageError, match="peft is for adapters: give one as --ckpt"):
        export(Request(ModelSpec("tiny"), "peft", tmp_path / "out"))
    merged = tmp_path / "merged.pt"
    save_checkpoint(models.small_model(CONFIG), merged, provenance={"adapter": str(tmp_path / "gone")})
    with pytest.raises(CheckpointError, match=r"the adapter is no longer in .*gone.*: give it as --ckpt"):
        export(Request(ModelSpec(ckpt=merged), "peft", tmp_path / "out"))
    save_checkpoint(models.small_model(CONFIG), merged, provenance={"adapter": adapter})
    assert export(Request(ModelSpec(ckpt=merged), "peft", tmp_path / "out"))  # found beside the run that made both


def test_the_base_of_an_adapter_is_found_from_everywhere_here_and_not_told_elsewhere(adapter, tmp_path, monkeypatch):
    models.save_hub_directory(models.small_model(CONFIG), tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    told = []
    for push in (None, "owner/name"):
        export(Request(ModelSpec("base", adapter), "peft", tmp_path / "out", push=push, force=True))
        told.append(json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"])
        assert str(tmp_path) not in (tmp_path / "out" / "README.md").read_text()
    assert told == [str(tmp_path / "base"), None]


@pytest.mark.parametrize("format", ["hf", "gguf", "peft"])
def test_an_adapter_for_another_base(adapter, tmp_path, format):
    other = models.save_hub_directory(models.small_model(GPTConfig(1, 2, 48, block_size=16)), tmp_path / "other")
    out = tmp_path / ("out.gguf" if format == "gguf" else "out")
    with pytest.raises(CheckpointError, match="an adapter for another base"):
        export(Request(ModelSpec(str(other), adapter), format, out))
    assert not out.exists()


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_files_follow_the_umask(ckpt, adapter, tmp_path, format):
    out = tmp_path / {"gguf": "out.gguf", "hf": "out", "peft": "out"}.get(format, "out.safetensors")
    old = os.umask(0o027)
    try:
        files = export(Request(ModelSpec(ckpt=adapter if format == "peft" else ckpt), format, out))
    finally:
        os.umask(old)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o640}
    assert stat.S_IMODE(out.stat().st_mode) == (0o750 if out.is_dir() else 0o640)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=["ctrl-c", "full"])
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("format", ["hf", "gguf", "nanogpt"])
def test_what_breaks_off_leaves_nothing_or_the_old(ckpt, tmp_path, monkeypatch, error, there, format):
    out = tmp_path / {"hf": "out", "gguf": "out.gguf", "nanogpt": "out.safetensors"}[format]
    if there:
        export(Request(ModelSpec(ckpt=ckpt), format, out))
    before = everything(tmp_path)

    def fails(*args, **options):
        raise error

    where = {
        "hf": (huggingface, "tokenizer_config"),
        "gguf": (write, "write_gguf"),
        "nanogpt": (write, "write_tensors"),
    }
    monkeypatch.setattr(*where[format], fails)
    with pytest.raises((KeyboardInterrupt, ResourceError)) as raised:
        export(Request(ModelSpec(ckpt=ckpt), format, out, force=True))
    if isinstance(error, OSError):
        assert "No space left on device" in str(raised.value)
    assert everything(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"a.safetensors"} | ({out.name} if there else set())


def test_a_damaged_template_is_said(model, tmp_path):
    save_checkpoint(model, tmp_path / "a.pt", template={"words": "none"})
    with pytest.raises(GPT2Error, match=r"prompt template is damaged"):
        export(Request(ModelSpec(ckpt=tmp_path / "a.pt"), "hf", tmp_path / "out"))


@pytest.mark.parametrize(
    ("settings", "base", "shown"),
    [
        ({"model": "gpt2-medium"}, "openai-community/gpt2-medium", "openai-community/gpt2-medium"),
        ({"model": "owner/name@v1"}, "owner/name", "owner/name@v1"),
        ({"model": None}, "openai-community/gpt2", "openai-community/gpt2"),
        ({"model": "tiny"}, None, "tiny"),
        ({"model": "models/mine"}, None, "mine"),
        ({"model": None, "ckpt": "runs/tuned.pt"}, None, "tuned.pt"),
        ({"model": None, "ckpt": "/home/me/tuned.pt"}, None, "tuned.pt"),
        ({"model": "a/" * 3000 + "mine"}, None, "mine"),
    ],
)
def test_only_what_is_on_the_hub_is_named_as_a_base_there(tmp_path, monkeypatch, settings, base, shown):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    card = write_card("a", "a", CONFIG, {"settings": settings}, None)
    assert f"fine-tuned from {shown} with" in card
    assert (f'base_model: "{base}"' in card) if base else ("base_model" not in card)


def test_the_card_tells_what_is_known_and_keeps_paths_to_itself(model, tmp_path):
    provenance = {
        "settings": {
            "model": "gpt2", "ckpt": None, "data": "/home/me/secret/a.json", "from_scratch": None,
            "train": {"learning_rate": 5e-5, "max_steps": None}, "lora": {"rank": 8, "learning_rate": 1e-3},
        },
        "data": {"kind": "alpaca", "source": "/home/me/secret/a|b.json", "counts": {"train": 90, "long": 0}},
        "losses": {"final_val_loss": 2.123456789},
    }  # fmt: skip
    save_checkpoint(model, tmp_path / "a.pt", template=ALPACA.to_dict(), provenance=provenance)
    export(Request(ModelSpec(ckpt=tmp_path / "a.pt"), "hf", tmp_path / "out", push=None))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "secret" not in "".join(everything(tmp_path / "out")[str(tmp_path / "out" / "README.md")].decode())
    front = card.split("---")[1]
    assert json.loads(front.split("base_model: ")[1].splitlines()[0]) == "openai-community/gpt2"
    for row in ("| learning\\_rate | 5e-05 |", "| lora\\_rank | 8 |", "| source | a\\|b.json |", "| train | 90 |"):
        assert row in card
    assert "| final\\_val\\_loss | 2.12346 |" in card
    assert "max" not in card.split("## Settings")[1]
    assert "fine-tuned from openai-community/gpt2" in card
    assert "### Response:" in card
    assert "apply_chat_template" in card
    assert "A system message replaces the text before the first heading." in card
    assert load_plain(str(tmp_path / "out"), device="cpu").config == CONFIG


@pytest.mark.parametrize("name", ["x" * 300 + "/y", "a\0/b", "x\n---\n# <script>", 7, ["x"]])
def test_a_base_that_is_no_name_is_not_in_the_card(model, tmp_path, name):
    provenance = {"settings": {"ckpt": name, "train": {"a\ud800": "b\ud800" + "c" * 10_000}}}
    save_checkpoint(model, tmp_path / "a.safetensors", provenance=provenance)
    export(Request(ModelSpec(ckpt=tmp_path / "a.safetensors"), "hf", tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert ", trained with gpt2cli" in card
    assert "script" not in card
    assert len(card) < 2_000


def test_a_name_in_a_card_is_neither_markdown_nor_python(adapter, tmp_path):
    config = Path(adapter) / "adapter_config.json"
    fields = json.loads(config.read_text()) | {"base_model_name_or_path": '<b>"+exit()+"'}
    config.write_text(json.dumps(fields))
    export(Request(ModelSpec(ckpt=adapter), "peft", tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert r"exported from \<b\>" in card
    assert r'from_pretrained("<b>\"+exit()+\"")' in card


@pytest.mark.parametrize("provenance", ["[" * 900 + "]" * 900, "[1" + ",1" * 100_000 + "]"])
@pytest.mark.parametrize(("format", "name"), [("hf", "out"), ("gpt2cli", "out.pt"), ("gpt2cli", "out.safetensors")])
def test_an_origin_that_is_nested_or_long_beyond_reason_is_refused(model, tmp_path, provenance, format, name):
    metadata = {"config": '{"n_head": 2}', "provenance": f'{{"settings": {provenance}}}'}
    save_file(dict(model.state_dict()), tmp_path / "a.safetensors", metadata)
    with pytest.raises(CheckpointError, match="beyond reason"):
        export(Request(ModelSpec(ckpt=tmp_path / "a.safetensors"), format, tmp_path / name))


def test_a_template_that_no_file_can_hold_is_refused(model, tmp_path):
    template = {"with_input": "\ud800{instruction}{input}", "without_input": "{instruction}"}
    save_checkpoint(model, tmp_path / "a.safetensors", template=template)
    with pytest.raises(CheckpointError, match="template is not a table of texts"):
        export(Request(ModelSpec(ckpt=tmp_path / "a.safetensors"), "hf", tmp_path / "out"))


def test_an_adapter_that_is_gone_is_named_shortly(model, tmp_path):
    save_checkpoint(model, tmp_path / "a.pt", provenance={"adapter": "x" * 100_000})
    with pytest.raises(CheckpointError, match="its adapter merged") as error:
        export(Request(ModelSpec(ckpt=tmp_path / "a.pt"), "peft", tmp_path / "out"))
    assert len(str(error.value)) < 300 + len(str(tmp_path))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
@pytest.mark.parametrize(("format", "name"), [("hf", "folder"), ("gguf", "a.gguf"), ("nanogpt", "a.pt")])
def test_a_place_that_takes_no_files_is_found_before_the_model_is_loaded(format, name):
    with pytest.raises(ResourceError, match=f"cannot write /proc/{name}: .*: choose another place"):
        Request(ModelSpec("not/there"), format, Path("/proc") / name).check()


def test_an_export_that_was_ended_between_two_renames_is_there_again(tmp_path):
    place = tmp_path / ".folder.0123abcd.tmp"
    (place / "old").mkdir(parents=True)
    (place / "old" / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="is there already: use --force"):
        Request(ModelSpec("tiny"), "hf", tmp_path / "folder").check()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_adapter_that_a_killed_export_moved_away_opens(adapter, tmp_path):
    place = tmp_path / ".moved.0123abcd.tmp"
    place.mkdir()
    Path(adapter).rename(place / "old")
    load_plain(ckpt=tmp_path / "moved", device="cpu")
    assert not place.exists()
