"""Short runs on plain text, carried out as the command does, and what to compare of them."""

import json
from dataclasses import replace
from pathlib import Path

import torch

from gpt2cli.config import DataConfig, GPTConfig, TrainConfig
from gpt2cli.training.begin import RunOptions, begin
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.engine import train
from gpt2cli.training.settings import Settings

CONSTANT = TrainConfig(
    epochs=2,
    batch_size=4,
    learning_rate=1e-2,
    schedule="constant",
    warmup=2,
    sample_every=0,
    eval_every=3,
    save_every=4,
)
"""Epochs of 6 steps."""


def settings_in(tmp_path: Path) -> Settings:
    """A run of two epochs on plain text, which can be extended."""
    (tmp_path / "tale.txt").write_text("".join(f"The fox said {n} to the rain. " for n in range(48)))
    return Settings(
        model=None,
        ckpt=None,
        data=str(tmp_path / "tale.txt"),
        train=CONSTANT,
        records=DataConfig(test_fraction=0),
        from_scratch=GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=16),
        out=str(tmp_path / "out.pt"),
    )


def carry_out(
    settings: Settings, run: Path, stop_after: int | None = None, killed_after: int | None = None, **options
) -> list[str]:
    """Train, as the command does. Returns the notes.

    stop_after    the step after which the run is asked to stop
    killed_after  the number of events after which the process ends, and does nothing more
    """
    notes: list[str] = []
    asked = RunOptions(path=run, device="cpu", **options)
    with begin(settings, asked, Ranks(), lambda event: notes.append(event.text)) as work:
        if work is None:
            return notes
        for number, event in enumerate(train(work.job)):
            if number == killed_after:
                return notes
            work.directory.handle(event)
            work.weights.handle(event)
            work.job.should_stop = lambda: getattr(event, "step", 0) + 1 == stop_after  # noqa: B023
        if event.reason != "interrupted":
            work.write_weights(event)
    return notes


def weights(file: str | Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True)["model"]


def same(one: str | Path, other: str | Path) -> bool:
    expected, found = weights(one), weights(other)
    return expected.keys() == found.keys() and all(torch.equal(found[name], t) for name, t in expected.items())


def steps(run: Path) -> list[tuple]:
    """The figures of all steps that depend neither on the time nor, as the smoothed loss may, on the run's length."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    exact = ("step", "epoch", "loss", "lr", "grad_norm", "tokens", "targets")
    return [tuple(line[name] for name in exact) for line in lines if line["kind"] == "step"]


def elsewhere(settings: Settings, name: str, **changes) -> Settings:
    """The same settings with another file for the weights, and with these changes in how to train."""
    return replace(settings, out=str(Path(settings.out).with_name(name)), train=replace(settings.train, **changes))
