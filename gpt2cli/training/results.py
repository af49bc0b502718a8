"""The weights that a run gives: the model as it ended, the adapter alone, and what did best on the validation split."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gpt2cli import atomic, paths
from gpt2cli.checkpoints.adapters import CONFIG, WEIGHTS, is_adapter, save_adapter
from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.metadata import read_metadata
from gpt2cli.checkpoints.save import disk_errors, save_checkpoint
from gpt2cli.config import DEFAULT_MODEL, PUBLISHED, TINY
from gpt2cli.data.splits import Splits
from gpt2cli.errors import ResourceError
from gpt2cli.model.gpt import GPT
from gpt2cli.model.lora import lora_state, merge_lora
from gpt2cli.training.events import Evaluated, Event, Finished, Started
from gpt2cli.training.settings import Settings

BEST, ADAPTER, BEST_ADAPTER, BASE = "best.pt", "adapter", "best-adapter", "base.safetensors"


def kept_files(run: Path) -> list[Path]:
    """The files that a run writes its weights into, or may, with an adapter's config."""
    directories = [run / name for name in (ADAPTER, BEST_ADAPTER)]
    return [run / BEST, run / BASE, *(directory / name for directory in directories for name in (WEIGHTS, CONFIG))]


def keep_base(settings: Settings, run: Path, offline: bool = False) -> Settings:
    """The settings, after merging a base that is itself an adapter into a new base in the run's directory.

    An adapter says by name which model it is for, and nothing opens an adapter for an adapter. Raises ResourceError
    if the disk is full.
    """
    if not settings.lora or settings.ckpt is None or not is_adapter(paths.expand(settings.ckpt)):
        return settings
    merged = load_plain(settings.model, ckpt=settings.ckpt, device="cpu", offline=offline)
    template = read_metadata(settings.ckpt).template
    base = (run / BASE).absolute()
    save_checkpoint(merged, base, template=template, provenance={"adapter": settings.ckpt})
    return replace(settings, model=None, ckpt=str(base))


@dataclass(frozen=True)
class Results:
    """Writes a model that is being trained, or has been, with its prompt template and where it came from.

    run  the run's directory
    """

    model: GPT
    settings: Settings
    splits: Splits
    run: Path

    @property
    def best(self) -> Path:
        """Where the weights with the lowest validation loss are; with LoRA, the adapter."""
        return self.run / (BEST_ADAPTER if self.settings.lora else BEST)

    def handle(self, event: Event) -> None:
        """Keep the weights of an evaluation if none before was as good. Raises ResourceError if the disk is full.

        Not if nothing is to be saved, and not before the first step: those weights are there already.
        """
        match event:
            case Started():  # what a killed run was about to write
                with disk_errors(self.run):
                    for file in kept_files(self.run):
                        atomic.sweep(file)
            case Evaluated(best=True) if event.step and self.settings.train.save_every != 0:
                try:
                    self._write_best(event)
                except ResourceError as error:
                    raise ResourceError(f"{error}; the last checkpoint is intact") from None

    def _write_best(self, event: Evaluated) -> None:
        known = self._provenance(event.step, {"val": event.val_loss})
        if self.settings.lora:
            self._write_adapter(self.best, known)
        else:
            save_checkpoint(self.model, self.best, template=self._template, provenance=known)

    def write(self, out: Path, finished: Finished) -> None:
        """Write the whole model to `out`, with any adapter merged, and the adapter alone into the run's directory.

        That is the end of the model as it was trained: an adapter is merged in place.
        """
        model, losses = self.model, {"train": finished.final_train_loss, "val": finished.final_val_loss}
        known = self._provenance(finished.steps, losses)
        if self.settings.lora:
            adapter = self.run / ADAPTER
            self._write_adapter(adapter, known)
            known["adapter"] = str(adapter.absolute())  # where `gpt2 export --format peft` finds it
            if model.h[0].mlp.c_fc.weight.dtype == torch.float32:  # type: ignore[union-attr]
                merge_lora(model)
            else:  # into the weights as they were before they were rounded
                model = load_plain(ckpt=adapter, device="cpu", offline=True)
        save_checkpoint(model, out, template=self._template, provenance=known)

    def _write_adapter(self, directory: Path, known: dict[str, Any]) -> None:
        assert self.settings.lora
        base = self.settings.ckpt or self.settings.model or DEFAULT_MODEL
        if (self.settings.ckpt or base not in (*PUBLISHED, TINY)) and paths.expand(base).exists():
            base = str(paths.expand(base).absolute())
        tensors = lora_state(self.model)
        save_adapter(directory, tensors, self.settings.lora, base=base, template=self._template, provenance=known)

    @property
    def _template(self) -> dict[str, str] | None:
        return self.splits.template.to_dict() if self.splits.template else None

    def _provenance(self, step: int, losses: dict[str, Any]) -> dict[str, Any]:
        return {"settings": self.settings.as_dict(), "data": self.splits.info, "step": step, "losses": losses}
