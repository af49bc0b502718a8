"""Small records, data sets, jobs and events for the tests of training."""

import json
from pathlib import Path

import torch

from gpt2cli.config import DataConfig, GPTConfig, TrainConfig
from gpt2cli.data.dataset import TokenDataset, from_masked, from_sequences
from gpt2cli.training.engine import train
from gpt2cli.training.events import Event, Finished, Started, Step
from gpt2cli.training.job import Job
from gpt2cli.training.settings import Settings
from tests import models

SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=48, vocab_size=120)
COLOURS = ("red", "green", "blue", "yellow", "black", "white", "brown", "grey", "pink", "orange")
THINGS = ("door", "boat", "hat", "cup", "kite", "lamp")


def write_records(path: Path, n: int = 60) -> Path:
    """Records that a model can learn: what colour a thing has."""
    pairs = [(colour, thing) for thing in THINGS for colour in COLOURS][:n]
    records = [
        {"instruction": f"Name the colour of the {colour} {thing}.", "input": "", "output": f"The {thing} is {colour}."}
        for colour, thing in pairs
    ]
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def dataset(n: int = 24, seed: int = 0, vocab_size: int = 120) -> TokenDataset:
    """Random sequences of different lengths, their masks uneven too."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, 30, (n,), generator=draw).tolist()
    sequences = [torch.randint(vocab_size, (length,), generator=draw).to(torch.uint16) for length in lengths]
    return from_sequences(sequences, [1 + i % (length - 1) for i, length in enumerate(lengths)])


def alike(n: int = 12, seed: int = 0) -> TokenDataset:
    """Sequences of which each begins in one of two ways, as instructions in a template do, and one that is alone."""
    draw = torch.Generator().manual_seed(seed)
    beginnings = [torch.randint(120, (length,), generator=draw) for length in (18, 21)]
    rests = [
        torch.randint(120, (int(length),), generator=draw) for length in torch.randint(3, 20, (n,), generator=draw)
    ]
    sequences = [torch.cat([beginnings[i % 2], rest]) for i, rest in enumerate(rests)] + [torch.arange(30)]
    first_targets = [len(beginnings[i % 2]) + 1 + i % 2 for i in range(n)] + [5]
    return from_sequences([sequence.to(torch.uint16) for sequence in sequences], first_targets)


def conversations(n: int = 12, seed: int = 0) -> TokenDataset:
    """Sequences with several runs of targets each. Pairs of them begin alike, up to the end of the first run."""
    draw = torch.Generator().manual_seed(seed)

    def run(shortest: int, longest: int) -> torch.Tensor:
        length = int(torch.randint(shortest, longest, (1,), generator=draw))
        return torch.randint(120, (length,), generator=draw).to(torch.uint16)

    sequences, masks = [], []
    for i in range(n):
        if i % 2 == 0:
            beginning = [run(17, 22), run(2, 5)]
        parts = beginning + [run(1, 6) for _ in range(2 * (i % 3))]
        sequences.append(torch.cat(parts))
        masks.append(torch.cat([torch.full((len(part),), k % 2 == 1) for k, part in enumerate(parts)]))
    return from_masked(sequences, masks)


def settings_from(model: str | None, **changes) -> Settings:
    """The settings of a run from this model, with defaults for all others."""
    defaults = {"model": model, "ckpt": None, "data": None, "train": TrainConfig(), "records": DataConfig()}
    return Settings(**defaults | changes)


def started(step: int) -> Started:
    """The first event of a run of four steps, resumed after `step`."""
    return Started(
        step=step,
        total_steps=4,
        epochs=1,
        train_examples=10,
        val_examples=2,
        val_used=2,
        plain_text=False,
        samples_from_training=False,
        trainable_parameters=5,
        parameters=5,
    )


def step_event(number: int) -> Step:
    return Step(
        step=number,
        epoch=number / 4,
        loss=1 / number,
        smoothed_loss=2 / number,
        lr=1e-4,
        grad_norm=1.5,
        tokens=100,
        targets=40,
        tok_s=333.3,
    )


FINISHED = Finished(
    steps=4,
    tokens_seen=400,
    train_seconds=2.0,
    train_tok_s=200.0,
    peak_rss_mb=900.0,
    final_train_loss=2.25,
    final_train_loss_steps=1,
    final_val_loss=2.5,
    final_val_step=4,
    best_val_loss=2.5,
    best_val_step=4,
    reason="done",
)


def job(**changes) -> Job:
    """A small run in fp32 without dropout, unless told otherwise."""
    train_names = TrainConfig.__dataclass_fields__
    config = {"epochs": 2, "learning_rate": 1e-2, "dropout": 0.0, "warmup": 2, "sample_every": 0, "save_every": 0}
    config |= {name: changes.pop(name) for name in list(changes) if name in train_names}
    dropout = config["dropout"]
    shape = GPTConfig(**{**SHAPE.__dict__, "dropout": dropout})
    defaults = {"model": models.small_model(shape), "train": dataset(), "val": None, "config": TrainConfig(**config)}
    return Job(**(defaults | changes))


def events_of(job: Job, kind: type[Event]) -> list:
    return [event for event in train(job) if isinstance(event, kind)]


def weights_of(job: Job) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in job.model.state_dict().items()}
