"""Whole files and directories of every kind that gpt2cli reads, from which mutants are made."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from gpt2cli.checkpoints.save import save_checkpoint, save_tensors
from gpt2cli.checkpoints.save_adapter import save_adapter
from gpt2cli.config import DataConfig, GPTConfig, LoRAConfig
from gpt2cli.data.open_data import load_records
from gpt2cli.data.prepared import write_prepared
from gpt2cli.export.gguf_file import write_gguf
from gpt2cli.model.lora import add_lora, lora_state
from gpt2cli.prompts import ALPACA
from gpt2cli.training.engine import train
from gpt2cli.training.run_directory import RunDirectory
from tests import models
from tests.training.records import job, write_records

SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=24, vocab_size=300)
TEMPLATE = ALPACA.to_dict()


def safetensors(work: Path) -> None:
    save_checkpoint(models.small_model(SHAPE), work / "a.safetensors", template=TEMPLATE, provenance={"data": "x"})


def hub(work: Path) -> None:
    models.save_hub_directory(models.small_model(SHAPE), work)


def quantized(bits: int) -> Callable[[Path], None]:
    """As `gpt2 quantize` writes it, with one row of the embedding for half of the tokens."""

    def make(work: Path) -> None:
        occurs = torch.arange(SHAPE.vocab_size) % 2 == 0
        state = models.quantized_state(models.small_model(SHAPE).state_dict(), bits, occurs)
        save_tensors(state, SHAPE, work / "a.safetensors", template=TEMPLATE)

    return make


def pt(work: Path) -> None:
    save_checkpoint(models.small_model(SHAPE), work / "a.pt", template=TEMPLATE, provenance={"data": "x"})


def nanogpt(work: Path) -> None:
    torch.save(models.nanogpt_checkpoint(models.small_model(SHAPE)), work / "a.pt")


def old_pt(work: Path) -> None:
    content = models.our_checkpoint(models.small_model(SHAPE))
    torch.save(content, work / "a.pkl", _use_new_zipfile_serialization=False)


def gguf(work: Path) -> None:
    write_gguf(work / "a.gguf", models.small_model(SHAPE).state_dict(), SHAPE, "q8_0", "a", ALPACA)


def adapter(work: Path) -> None:
    models.save_hub_directory(models.small_model(SHAPE), work / "base")
    model = models.small_model(SHAPE)
    add_lora(model, LoRAConfig(rank=4))
    save_adapter(work / "adapter", lora_state(model), LoRAConfig(rank=4), base=str(work / "base"), template=TEMPLATE)


def shards(work: Path) -> None:
    state = models.hub_state(models.small_model(SHAPE))
    names = list(state)
    parts = {"a-1.safetensors": names[::2], "a-2.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: state[name] for name in part}, work / file)
    places = {name: file for file, part in parts.items() for name in part}
    (work / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (work / "config.json").write_text(json.dumps(models.hub_config(SHAPE)))


def run(work: Path) -> None:
    """A run of six steps, as `resume_job` goes on with it."""
    with RunDirectory(work / "run") as directory:
        directory.write_config({"model": "tiny", "epochs": 2})
        for event in train(job(save_every=3, max_steps=6, keep_states=True, checkpoints=directory.checkpoints)):
            directory.handle(event)


def prepared(work: Path) -> None:
    records = write_records(work / "records.json", 30)
    splits = load_records(records, 256, "response", replace(DataConfig(), test_fraction=0.1), source="records")
    write_prepared(splits, work / "data")
    records.unlink()


KINDS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "safetensors": (safetensors, ("a.safetensors",)),
    "hub": (hub, ("model.safetensors", "config.json")),
    "int8": (quantized(8), ("a.safetensors",)),
    "int4": (quantized(4), ("a.safetensors",)),
    "pt": (pt, ("a.pt",)),
    "nanogpt": (nanogpt, ("a.pt",)),
    "old pt": (old_pt, ("a.pkl",)),
    "gguf": (gguf, ("a.gguf",)),
    "adapter": (adapter, ("adapter/adapter_config.json", "adapter/adapter_model.safetensors")),
    "config": (hub, ("config.json",)),
    "index": (shards, ("model.safetensors.index.json",)),
    "run": (
        run,
        (
            "run/config.json",
            "run/metrics.jsonl",
            "run/summary.json",
            "run/checkpoints/step-00000006/state.json",
            "run/checkpoints/step-00000006/weights.safetensors",
            "run/checkpoints/step-00000006/optimizer.safetensors",
        ),
    ),
    "prepared": (prepared, ("data/data.safetensors",)),
}
"""What makes the files of a kind in an empty directory, and which of them are changed."""
