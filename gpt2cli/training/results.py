"""The weights that a run gives: the model as it ended, the adapter alone, and what did best on the validation split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpt2cli import paths
from gpt2cli.checkpoints.adapters import save_adapter
from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.config import DEFAULT_MODEL
from gpt2cli.data.splits import Splits
from gpt2cli.model.gpt import GPT
from gpt2cli.model.lora import lora_state, merge_lora
from gpt2cli.training.events import Evaluated, Event, Finished
from gpt2cli.training.settings import Settings


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
        return self.run / ("best-adapter" if self.settings.lora else "best.pt")

    def handle(self, event: Event) -> None:
        """Keep the weights if none before did as well. Raises ResourceError if they cannot be written."""
        if not (isinstance(event, Evaluated) and event.best and event.step and self.settings.train.save_every != 0):
            return
        losses = {"val": event.val_loss}
        if self.settings.lora:
            self._write_adapter(self.best, losses)
        else:
            self._write_model(self.model, self.best, losses)

    def write(self, out: Path, finished: Finished) -> None:
        """Write the whole model to `out`, with any adapter merged, and the adapter alone into the run's directory.

        That is the end of the model as it was trained: an adapter is merged in place.
        """
        model, losses = self.model, {"train": finished.final_train_loss, "val": finished.final_val_loss}
        if not self.settings.lora:
            self._write_model(model, out, losses)
            return
        adapter = self.run / "adapter"
        self._write_adapter(adapter, losses)
        if model.h[0].mlp.c_fc.weight.dtype == torch.float32:  # type: ignore[union-attr]
            merge_lora(model)
        else:  # into the weights as they were before they were rounded
            model = load_plain(ckpt=adapter, device="cpu", offline=True)
        # the adapter's place, for `gpt2 export --format peft`
        self._write_model(model, out, losses, adapter=str(adapter.absolute()))

    def _write_model(self, model: GPT, file: Path, losses: dict[str, Any], **more: str) -> None:
        save_checkpoint(model, file, template=self._template, provenance=self._provenance(losses) | more)

    def _write_adapter(self, directory: Path, losses: dict[str, Any]) -> None:
        assert self.settings.lora
        base = self.settings.ckpt or self.settings.model or DEFAULT_MODEL
        if paths.expand(base).exists():
            base = str(paths.expand(base).absolute())
        provenance = self._provenance(losses)
        tensors = lora_state(self.model)
        save_adapter(directory, tensors, self.settings.lora, base=base, template=self._template, provenance=provenance)

    @property
    def _template(self) -> dict[str, str] | None:
        return self.splits.template.to_dict() if self.splits.template else None

    def _provenance(self, losses: dict[str, Any]) -> dict[str, Any]:
        return {"settings": self.settings.as_dict(), "data": self.splits.info, "losses": losses}
