"""A model described by the headers of its files."""

import json
import struct
from pathlib import Path

import pytest

from gpt2cli.checkpoints.described import AdapterSize, describe
from gpt2cli.checkpoints.lazy_arrays import LazyArray
from gpt2cli.checkpoints.model_shape import parameter_shapes
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.quantized_file import quantize_model
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.checkpoints.save_adapter import save_adapter
from gpt2cli.config import GPTConfig, LoRAConfig
from gpt2cli.errors import CheckpointError, GPT2Error, NetworkError
from gpt2cli.model.lora import add_lora, lora_state
from gpt2cli.prompts import ALPACA
from gpt2cli.published import PUBLISHED
from tests import models
from tests.hub_server import HubServer

SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=48, vocab_size=300)
LORA = LoRAConfig(rank=2)
XL = PUBLISHED["gpt2-xl"].config


@pytest.fixture
def values_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a tensor of floating-point numbers fails."""
    read = LazyArray.read

    def only_integers(array: LazyArray) -> object:
        assert array.dtype.kind in "iu", "a weight was read"
        return read(array)

    monkeypatch.setattr(LazyArray, "read", only_integers)


def sparse_file(path: Path, shape: GPTConfig) -> Path:
    """A `.safetensors` file of a model, with holes for tensors: it takes a few kilobytes of the disk."""
    header, at = {}, 0
    for name, size in parameter_shapes(shape).items():
        count = 4 * size[0] * (size[1] if len(size) == 2 else 1)
        header[name] = {"dtype": "F32", "shape": size, "data_offsets": [at, at + count]}
        at += count
    text = json.dumps(header | {"__metadata__": {"config": json.dumps({"n_head": shape.n_head})}}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    return path


@pytest.mark.usefixtures("values_are_not_read", "home")
def test_each_kind_of_file_is_described_without_its_weights(tmp_path: Path) -> None:
    model = models.small_model(SHAPE)
    base = models.save_hub_directory(model, tmp_path / "base")
    save_checkpoint(model, tmp_path / "a.pt", template=ALPACA.to_dict(), provenance={"step": 7})
    found = {name: describe(ModelSpec(name)) for name in (str(base), "tiny")}
    assert found[str(base)].stored_as == "float32" and found["tiny"].stored_as == "int4"
    of_file = describe(ModelSpec(ckpt=tmp_path / "a.pt"))
    assert (of_file.config, of_file.stored_as) == (ModelSpec(str(base)).shape(), "float32")
    assert of_file.facts.template == ALPACA.to_dict() and of_file.facts.provenance == {"step": 7}


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantized_file_says_its_bits(tmp_path: Path, bits: int) -> None:
    models.save_hub_directory(models.small_model(SHAPE), tmp_path / "base")
    quantize_model(ModelSpec(str(tmp_path / "base")), bits, tmp_path / "small.safetensors")
    assert describe(ModelSpec(ckpt=tmp_path / "small.safetensors")).stored_as == f"int{bits}"


@pytest.mark.usefixtures("values_are_not_read", "home")
def test_a_file_of_six_gigabytes_is_described_by_its_header(tmp_path: Path) -> None:
    found = describe(ModelSpec(ckpt=sparse_file(tmp_path / "xl.safetensors", XL)))
    assert (found.config.n_layer, found.config.n_head, found.config.n_embd) == (48, 25, 1600)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_is_known_before_it_is_downloaded(hub: HubServer, name: str) -> None:
    found = describe(ModelSpec(name))
    assert found.config == PUBLISHED[name].config and found.stored_as is None
    assert hub.log == []


def test_of_a_model_on_the_hub_only_the_config_is_fetched(hub: HubServer, home: Path) -> None:
    hub.repo, hub.files["config.json"] = "o/n", json.dumps(models.hub_config(SHAPE)).encode()
    found = describe(ModelSpec("o/n"))
    assert (found.config.n_layer, found.config.n_embd, found.config.block_size) == (2, 32, 48)
    assert found.config.tied and found.stored_as is None
    assert {name for _, name, _ in hub.log} == {"config.json"}
    assert not list(home.rglob("config.json"))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (b"[]", "no JSON object"),
        (b"{", "no JSON object"),
        (b'{"model_type": "bert"}', "only 'gpt2' is GPT-2"),
        (b'{"n_layer": "12"}', "n_layer is '12', not of type int"),
        (b'{"n_layer": true}', "n_layer is True, not of type int"),
        (b'{"n_layer": 0}', "n_layer"),
        (b'{"n_head": 7}', "n_embd"),
    ],
)
def test_a_config_that_is_none_is_refused(hub: HubServer, config: bytes, said: str) -> None:
    hub.repo, hub.files["config.json"] = "o/n", config
    with pytest.raises(CheckpointError, match=said):
        describe(ModelSpec("o/n"))


def test_offline_or_without_an_answer_a_model_on_the_hub_is_not_described(hub: HubServer) -> None:
    for spec in (ModelSpec("o/n", offline=True), ModelSpec("o/other")):
        with pytest.raises(NetworkError):
            describe(spec)
    with pytest.raises(NetworkError):
        describe(ModelSpec("o/n@v2"))


def test_an_adapter_is_described_with_its_base(tmp_path: Path) -> None:
    model = models.small_model(SHAPE)
    base = models.save_hub_directory(model, tmp_path / "base")
    add_lora(model, LORA)
    tensors = lora_state(model)
    save_adapter(tmp_path / "lora", tensors, LORA, base=str(base), template=ALPACA.to_dict())
    found = describe(ModelSpec(ckpt=tmp_path / "lora"))
    size = AdapterSize(str(base), 2, sum(tensor.numel() for tensor in tensors.values()))
    assert (found.adapter, found.facts.template) == (size, ALPACA.to_dict())
    with pytest.raises(CheckpointError, match="another base"):
        describe(ModelSpec("gpt2", tmp_path / "lora"))


def test_an_adapter_of_a_published_model_that_is_not_here(tmp_path: Path, hub: HubServer) -> None:
    with_adapter = models.small_model(GPTConfig(1, 12, 768, 8, 16))
    add_lora(with_adapter, LORA)
    save_adapter(tmp_path / "lora", lora_state(with_adapter), LORA, base="gpt2")
    found = describe(ModelSpec(ckpt=tmp_path / "lora"))
    assert found.config == GPTConfig() and found.adapter and found.adapter.base == "gpt2"
    assert hub.log == []


@pytest.mark.usefixtures("home")
def test_damage_is_reported_as_when_the_model_is_loaded(tmp_path: Path) -> None:
    whole = sparse_file(tmp_path / "whole.safetensors", SHAPE).read_bytes()
    for name, content in (("cut", whole[:-1]), ("header", whole[:8] + b"x" + whole[9:]), ("empty", b"")):
        file = tmp_path / f"{name}.safetensors"
        file.write_bytes(content)
        with pytest.raises(CheckpointError) as described:
            describe(ModelSpec(ckpt=file))
        with pytest.raises(GPT2Error) as loaded:
            ModelSpec(ckpt=file).read_stored()
        assert str(described.value) == str(loaded.value)
