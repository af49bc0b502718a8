"""A saved checkpoint gives the model back, or nothing has changed."""

import json
import os
import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from gpt2cli.checkpoints import save
from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.metadata import read_metadata
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.config import GPTConfig, LoRAConfig
from gpt2cli.errors import CheckpointError, ResourceError, UsageError
from gpt2cli.model.lora import add_lora, lora_state
from gpt2cli.outputs import check_checkpoint
from tests import models
from tests.runner import PATIENCE

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=37, vocab_size=500)
IDX = torch.arange(20).reshape(2, 10) * 31 % 500
TEMPLATE = {"with_input": "### Instruction:\n{instruction}\n", "no_input": "é"}
PROVENANCE = {"base": "gpt2", "steps": 12, "lora": None, "loss": 2.5, "data": ["a.json"]}
FILES = ["a.pt", "a.safetensors"]
both = pytest.mark.parametrize("name", FILES)


@pytest.fixture(scope="module")
def model():
    return models.small_model(CONFIG)


def assert_same(file, model):
    with torch.no_grad():
        assert torch.equal(load_plain(ckpt=file, device="cpu")(IDX), model(IDX))


@both
def test_round_trip(model, tmp_path, name):
    save_checkpoint(model, tmp_path / name, template=TEMPLATE, provenance=PROVENANCE)
    assert_same(tmp_path / name, model)
    facts = read_metadata(tmp_path / name)
    assert (facts.template, facts.provenance) == (TEMPLATE, PROVENANCE)
    assert [file.name for file in tmp_path.iterdir()] == [name]


@both
def test_the_facts_may_be_left_out(model, tmp_path, name):
    save_checkpoint(model, tmp_path / name)
    facts = read_metadata(tmp_path / name)
    assert (facts.template, facts.provenance) == (None, {})


def test_pt_is_a_plain_dict(model, tmp_path):
    save_checkpoint(model, tmp_path / "a.pt", template=TEMPLATE, provenance=PROVENANCE)
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    assert list(loaded) == ["format", "version", "config", "template", "provenance", "model"]
    assert (loaded["format"], loaded["version"]) == ("gpt2cli", 1)
    assert GPTConfig(**loaded["config"]) == CONFIG
    assert loaded["model"].keys() == model.state_dict().keys()
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert {entry.split("/")[0] for entry in archive.namelist()} == {"archive"}


def test_the_same_model_makes_the_same_file(model, tmp_path):
    for name in ("a.pt", "b.pt"):
        save_checkpoint(model, tmp_path / name, template=TEMPLATE)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


@both
def test_a_head_of_its_own(tmp_path, name):
    model = models.small_model(GPTConfig(2, 3, 48, block_size=37, vocab_size=500, tied=False))
    save_checkpoint(model, tmp_path / name)
    assert not load_plain(ckpt=tmp_path / name).config.tied
    assert_same(tmp_path / name, model)


@both
@pytest.mark.parametrize("source", ["hub", "ours"])
def test_weights_mapped_from_a_file(model, tmp_path, name, source):
    """As the Hub's they are also transposed; ours are saved over the very file that they are mapped from."""
    if source == "hub":
        mapped = load_plain(str(models.save_hub_directory(model, tmp_path / "hub")), device="cpu")
        assert not mapped.h[0].mlp.c_fc.weight.is_contiguous()
    else:
        save_checkpoint(model, tmp_path / name)
        mapped = load_plain(ckpt=tmp_path / name, device="cpu")
    save_checkpoint(mapped, tmp_path / name)
    assert_same(tmp_path / name, model)
    assert (tmp_path / name).stat().st_size < 4 * sum(p.numel() for p in model.parameters()) + 20_000


@both
def test_shared_storage_is_written_once_for_each_name(tmp_path, name):
    model = models.small_model(CONFIG)
    whole = torch.randn(3, 48)
    model.h[0].ln_1.weight.data, model.h[1].ln_1.weight.data = whole[0], whole[1]
    model.h[0].ln_2.weight.data = model.h[1].ln_2.weight.data = whole[2]
    save_checkpoint(model, tmp_path / name)
    assert_same(tmp_path / name, model)


@both
def test_half_precision_stays(tmp_path, name):
    model = models.small_model(CONFIG).bfloat16()
    save_checkpoint(model, tmp_path / name)
    loaded = load_plain(ckpt=tmp_path / name, device="cpu").bfloat16()
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    assert (tmp_path / name).stat().st_size < 2 * sum(p.numel() for p in model.parameters()) + 20_000


@both
def test_adapters_are_merged_in_the_file_and_stay_in_the_model(tmp_path, name):
    model = models.small_model(CONFIG)
    add_lora(model, LoRAConfig(rank=4))
    with torch.no_grad():
        for tensor in lora_state(model).values():
            tensor.normal_(std=0.1)
        before = model(IDX)
        save_checkpoint(model, tmp_path / name)
        assert torch.equal(model(IDX), before)
        assert len(lora_state(model)) == 16
        torch.testing.assert_close(load_plain(ckpt=tmp_path / name, device="cpu")(IDX), before, atol=1e-5, rtol=0)


@both
def test_files_follow_the_umask(model, tmp_path, name):
    old = os.umask(0o027)
    try:
        save_checkpoint(model, tmp_path / name)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640


@both
def test_saving_leaves_the_mode_and_the_random_state(model, tmp_path, name):
    state = torch.get_rng_state()
    save_checkpoint(model.train(), tmp_path / name)
    assert model.training
    model.eval()
    assert torch.equal(torch.get_rng_state(), state)


def test_names_that_cannot_be_are_refused_early(tmp_path):
    for name in ("a", "a.bin", "a.pt.gz"):
        with pytest.raises(UsageError, match=r"let it end in \.pt or \.safetensors"):
            check_checkpoint(tmp_path / name)
    with pytest.raises(ResourceError, match=r"there is no directory .*no: make it"):
        check_checkpoint(tmp_path / "no" / "a.pt")
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(UsageError, match="is a directory"):
        check_checkpoint(tmp_path / "folder.pt")


SAVE_INTO_LITTLE_ROOM = """
import resource, sys
from pathlib import Path
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.errors import ResourceError
from tests.checkpoints.test_save import CONFIG, FILES, ROOM, models
model = models.small_model(CONFIG)
for room in ROOM:
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    for name in FILES:
        try:
            save_checkpoint(model, Path(sys.argv[1]) / name)
        except ResourceError as error:
            print(error)
"""
ROOM = (0, 100, 100_000)


def test_files_without_room_keep_the_old_ones(tmp_path):
    for name in FILES:
        (tmp_path / name).write_bytes(b"old")
    command = [sys.executable, "-c", SAVE_INTO_LITTLE_ROOM, str(tmp_path)]
    root = Path(__file__).parents[2]
    lines = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=PATIENCE).stdout.splitlines()
    assert len(lines) == len(ROOM) * len(FILES)
    for line, name in zip(lines, FILES * len(ROOM), strict=True):
        assert line.startswith(f"cannot write {tmp_path / name} (")
        assert "File too large" in line
        assert line.endswith("): make room, or choose another place")
    assert sorted(file.name for file in tmp_path.iterdir()) == FILES
    assert all((tmp_path / name).read_bytes() == b"old" for name in FILES)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_says_so_and_keeps_the_old_file(model, tmp_path, monkeypatch):
    real, target = save._RecordingFile, tmp_path / "a.pt"
    save_checkpoint(model, target)
    before = target.read_bytes()
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(save, "_RecordingFile", lambda file: real(full))
        with pytest.raises(ResourceError, match=r"a\.pt \(No space left on device\): make room") as error:
            save_checkpoint(model, target)
    assert error.value.exit_code == 6
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("how", ["at once", "inside torch's writer"])
def test_ctrl_c_while_saving_stays_ctrl_c(model, tmp_path, monkeypatch, how):
    real, target = save._RecordingFile, tmp_path / "a.pt"
    target.write_bytes(b"old")

    class Interrupted:
        def write(self, data):
            raise KeyboardInterrupt

        def flush(self):
            pass

    def interrupted(value, file):
        raise KeyboardInterrupt

    if how == "at once":
        monkeypatch.setattr(save.torch, "save", interrupted)
    else:
        monkeypatch.setattr(save, "_RecordingFile", lambda file: real(Interrupted()))
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(model, target)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_after_ctrl_c_is_a_full_disk(model, tmp_path, monkeypatch):
    def full(value, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(save.torch, "save", full)
    with pytest.raises(ResourceError, match="No space left"):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            save_checkpoint(model, tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("I/O error: No space left on device (os error 28)", "No space left on device): make room"),
        ("I/O error: Read-only file system (os error 30)", "Read-only file system): choose"),
        ("anything", "No space left on device): make room"),
    ],
)
def test_an_error_of_the_safetensors_writer_is_the_disks(model, tmp_path, monkeypatch, said, reason):
    def fails(*args):
        raise SafetensorError(said)

    monkeypatch.setattr(save, "save_file", fails)
    with pytest.raises(ResourceError, match=re.escape(reason)):
        save_checkpoint(model, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_facts_of_other_files(model, tmp_path):
    torch.save(models.nanogpt_checkpoint(model), tmp_path / "nano.pt")
    assert read_metadata(tmp_path / "nano.pt").template is None
    with pytest.raises(CheckpointError, match="is not there"):
        read_metadata(tmp_path / "missing.pt")
    for number, template in enumerate((json.dumps({"a": 1}), "[" * 100_000, "words")):
        save_file(model.state_dict(), tmp_path / f"{number}.safetensors", {"template": template})
        with pytest.raises(CheckpointError, match="template is not a table of texts"):
            read_metadata(tmp_path / f"{number}.safetensors")


def test_provenance_is_plain(model, tmp_path):
    with pytest.raises(TypeError):
        save_checkpoint(model, tmp_path / "a.pt", provenance={"path": tmp_path})
    assert list(tmp_path.iterdir()) == []
