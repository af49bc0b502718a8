"""Files of torch.save: ordinary checkpoints open, those that ask for more than they hold are refused at once."""

import pickle
import struct
import zipfile
from collections import OrderedDict

import pytest
import torch

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.metadata import read_metadata
from gpt2cli.checkpoints.pickle_scan import MAX_STEPS, PickleRefused, scan
from gpt2cli.config import GPTConfig
from gpt2cli.errors import CheckpointError
from tests import models
from tests.checkpoints.refusing import refused

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=37, vocab_size=100)


@pytest.fixture(scope="module")
def model():
    return models.small_model(CONFIG)


@pytest.fixture
def file(model, tmp_path):
    path = tmp_path / "a.pt"
    torch.save(models.our_checkpoint(model), path)
    return path


def schedule(model):
    """The state of a learning-rate schedule by milestones, which are in a Counter."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, [10, 20, 20]).state_dict()


def trained(model, kind=torch.optim.AdamW):
    """An optimizer with a state."""
    model = models.small_model(model.config)
    optimizer = kind(model.parameters(), lr=1e-3)
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def lightning(model):
    return {
        "epoch": 3,
        "global_step": 70_000,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{name}": tensor for name, tensor in model.state_dict().items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 3}, "is_last_batch": True}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(2.5), "best_k": {}}},
        "optimizer_states": [trained(model)],
        "lr_schedulers": [{"base_lrs": [1e-3], "_last_lr": [1e-4], "verbose": False}],
        "hparams_name": "kwargs",
        "hyper_parameters": OrderedDict(betas=(0.9, 0.95), seed=2**63, dtype=torch.float32, shape=torch.Size([2])),
    }  # fmt: skip


def llms_from_scratch(model):
    return {"model_state_dict": models.llms_from_scratch_state(model), "optimizer_state_dict": trained(model)}


@pytest.mark.parametrize(
    "saved",
    [
        lambda model: models.nanogpt_checkpoint(model) | {"optimizer": trained(model)},
        lambda model: models.nanogpt_checkpoint(model) | {"optimizer": trained(model, torch.optim.SGD)},
        lambda model: model.state_dict(),  # an OrderedDict with attributes
        lambda model: OrderedDict(models.hub_state(model)),
        lambda model: dict(model.named_parameters()),
        lambda model: {name: tensor.bfloat16() for name, tensor in model.state_dict().items()},
        lambda model: model.state_dict() | {"lm_head.weight": model.wte.weight},  # tied: one memory, two names
        lambda model: {"model": model.state_dict(), "rng": torch.get_rng_state(), "steps": [1, None, True, "x", 2.5]},
        lambda model: {"model": model.state_dict(), "scheduler": schedule(model)},
        lightning,
        llms_from_scratch,
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_ordinary_checkpoints_open(model, tmp_path, saved, zipped):
    torch.save(saved(model), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    (tmp_path / "config.json").write_text('{"n_embd": 48, "n_head": 3}')
    loaded = load_plain(ckpt=tmp_path / "a.pt")
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name].float(), tensor, atol=1e-2, rtol=1e-2)


def test_a_file_without_checksums_opens(model, tmp_path):
    computed = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(models.our_checkpoint(model), tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(computed)
    assert load_plain(ckpt=tmp_path / "a.pt").config.n_embd == 48


def test_tensors_that_repeat_a_number_are_refused(model, tmp_path):
    for dtype in (torch.float32, torch.bfloat16):
        one = torch.zeros(1, dtype=dtype)
        state = {name: one.expand(tensor.shape) for name, tensor in model.state_dict().items()}
        torch.save({"model": state, "model_args": {"n_head": 3}}, tmp_path / "a.pt")
        refused(tmp_path / "a.pt", "repeats numbers")


def test_one_tensor_that_repeats_a_row_is_refused(model, tmp_path):
    torch.save(model.state_dict() | {"wte.weight": torch.zeros(1, 48).expand(100, 48)}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", r"wte\.weight repeats numbers")


def test_blocks_that_all_share_one_blocks_memory_are_refused(model, tmp_path):
    """Each of them would become fp32 by itself."""
    state = model.state_dict()
    for block in range(2, 100):
        state |= {name.replace("h.0", f"h.{block}"): tensor for name, tensor in state.items() if "h.0" in name}
    torch.save(state, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "larger than the file")


def rewrite(file, change, compression=zipfile.ZIP_STORED):
    """The same archive with another pickle."""
    with zipfile.ZipFile(file) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)


def test_a_compressed_archive_is_refused(file):
    rewrite(file, lambda content: content[:2] + b"N0" * 2**24 + content[2:], zipfile.ZIP_DEFLATED)
    refused(file, "compressed")


def test_an_archive_that_two_readers_could_read_differently_is_refused(file):
    whole = file.read_bytes()
    file.write_bytes(whole + whole)
    refused(file, "not a whole archive|before or behind")
    rewrite(file, lambda content: content)  # without the records of large archives
    file.write_bytes(file.read_bytes() + file.read_bytes())
    refused(file, "before or behind")
    file.write_bytes(whole)
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"\x80\x02}.")
    refused(file, "twice")


@pytest.mark.parametrize("length", [4, 50, 98, 150, 1000, -1, -60, -5000])
def test_an_archive_cut_short_is_refused(file, length):
    file.write_bytes(file.read_bytes()[:length])
    refused(file, "is damaged")


def doubled(levels):
    value = ["x"]
    for _ in range(levels):
        value = [value, value]
    return value


@pytest.mark.parametrize(("name", "key"), [("n_layer", "config"), ("n_head", "config"), ("model_type", "model_args")])
def test_a_config_value_as_long_as_a_tree_of_references_is_not_shown(model, tmp_path, name, key):
    saved = models.our_checkpoint(model)
    for value in (doubled(30), saved):  # and one that holds itself
        saved |= {key: {"n_head": 3, name: value}}
        torch.save(saved, tmp_path / "a.pt")
        refused(tmp_path / "a.pt", "beyond reason")


def test_facts_as_long_as_a_tree_of_references_are_refused(model, tmp_path):
    torch.save(models.our_checkpoint(model) | {"provenance": {"data": doubled(30)}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="beyond reason"):
        read_metadata(tmp_path / "a.pt")


@pytest.mark.parametrize("value", [[3], {}, (3,), torch.tensor([3, 3]), 10**100, -1, True, "x" * 10**6])
def test_a_config_value_of_another_type_is_named_shortly(model, tmp_path, value):
    for name in ("n_layer", "n_head", "n_embd", "layer_norm_epsilon", "model_type", "scale_attn_weights"):
        if name == "scale_attn_weights" and value is True:
            continue
        saved = models.our_checkpoint(model)
        saved["config"][name] = value
        torch.save(saved, tmp_path / "a.pt")
        refused(tmp_path / "a.pt", name)


class Calls:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def nested(levels):
    key = ("x",)
    for _ in range(levels):
        key = (key, key)
    return key


def memory_of_class(kind):
    return b"(X\x07\0\0\0storage" + kind + b"X\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ."


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ"
HOOKS = b"ccollections\nOrderedDict\n)R"
COLLIDING = b"}(" + b"".join(b"\x8a\x10" + (n * (2**61 - 1)).to_bytes(16, "little") + b"N" for n in range(5)) + b"u."
COUNTER = b"ccollections\nCounter\nh\xff\x85R"
COUNTERS = pickle.dumps(dict.fromkeys(range(1000)), 2)[:-1] + b"q\xff" + COUNTER * 1000 + b"."
BIG_SHAPE = b"(" + STORAGE + b"K\0(" + b"K\x01" * 1000 + b"tK\x01\x85\x89" + HOOKS + b"tR."


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (pickle.dumps({"model": Calls(bytearray, 20 * 10**9)}, 2), "would run code"),
        (pickle.dumps({"model": {nested(28): 1}}, 2), "keys are not short texts"),
        (pickle.dumps({"x" * 1000: 1}, 2), "keys are not short texts"),
        (b"\x80\x02" + COLLIDING, "keys are not short texts"),
        (pickle.dumps({"model": Calls(OrderedDict, [["a", 1]])}, 2), "other values than torch.save"),
        (b"\x80\x02" + REBUILD + BIG_SHAPE, "other values than torch.save"),
        (b"\x80\x02" + REBUILD + b"(" + STORAGE + b"K\0K\x01\x85K\x01\x85\x89" + HOOKS + b"tR)b.", "sets attributes"),
        (b"\x80\x02" + b"(X\x07\0\0\0storagectorch\nFloatStorage\n)X\x03\0\0\0cpuK\x01tQ.", "no storage"),
        (b"\x80\x02" + memory_of_class(pickle.dumps(nested(60), 2)[2:-1]), "no storage"),
        (b"\x80\x02" + memory_of_class(b")" + b"\x85" * 200_000), "no storage"),
        (b"\x80\x02" + b"]" * MAX_STEPS + b".", "instructions"),
        (COUNTERS, "instructions"),
        (b"\x80\x02X\xff\xff\xff\xff.", "only 1 remain"),
        (b"\x80\x02h\x07.", "broken pickle"),
        (b"\x80\x02R.", "broken pickle"),
        (b"\x80\x02cnumpy", "no newline found"),
        (b"\x80\x02\x96" + struct.pack("<Q", 2**40) + b".", "instruction"),
        (b"", "broken pickle"),
        (b"\x80\x02I" + b"9" * 2**20 + b"\n.", "instruction"),
        (b"\x80\x02L" + b"9" * 2**20 + b"L\n.", "instruction"),
        (b"\x80\x02c\\d\n\\d\n.", "would run code"),
        (b"\x80\x02(X\x07\0\0\0storageX\x12\0\0\0torch.FloatStorageX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ.", "no storage"),
        (b"\x80\x02X\x17\0\0\0collections.OrderedDict)R.", "no function"),
        (b"\x80\x02NK\x01a.", "no list"),
        (b"\x80\x02NK\x01K\x02s.", "no dict"),
    ],
)
def test_a_pickle_that_a_state_dict_does_not_need_is_refused_before_it_is_run(file, content, why):
    rewrite(file, lambda _: content)
    refused(file, why)


def test_a_scan_accepts_what_torch_saves_and_names_what_it_calls():
    scan(pickle.dumps({"a": [1, 2.5, None, True, (1, 2)], 7: "x", "big": 2**70}, 2))
    with pytest.raises(PickleRefused, match=r"would run code, refused \(it calls builtins\.eval\)"):
        scan(b"cbuiltins\neval\n.")


def test_a_model_with_another_one_in_a_dict_beside_it_is_refused(model, tmp_path):
    other = models.small_model(CONFIG, seed=1).state_dict()
    torch.save({**model.state_dict(), "ema": other, "config": {"n_head": 3}}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "more than one state dict")
