"""Writes the weights of a run: the final model, the adapter, and those with the lowest validation loss."""

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpt2cli import atomic, outputs, paths
from gpt2cli.checkpoints.adapter_files import CONFIG, WEIGHTS, is_adapter
from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.metadata import read_metadata
from gpt2cli.checkpoints.save import disk_errors, save_checkpoint, writing
from gpt2cli.checkpoints.save_adapter import save_adapter
from gpt2cli.data.splits import Splits
from gpt2cli.errors import GPT2Error, ResourceError
from gpt2cli.model.gpt import GPT
from gpt2cli.model.lora import lora_state, merge_lora
from gpt2cli.published import DEFAULT_MODEL, PUBLISHED, TINY
from gpt2cli.training.checkpoint_directories import checkpoint_at
from gpt2cli.training.events import Evaluated, Event, Finished, Saved, Started
from gpt2cli.training.settings import Settings

BEST, ADAPTER, BEST_ADAPTER, BASE = "best.pt", "adapter", "best-adapter", "base.safetensors"
FINAL = "final.pt"
"""The file for the final weights in the run's directory, if they cannot be written to `--out`."""
RUN = "run"
"""The entry in a checkpoint's provenance with the directory of the run that wrote it."""


def kept_files(run: Path) -> list[Path]:
    """All files of weights, and adapter configs, that a run may write into its directory."""
    directories = [run / name for name in (ADAPTER, BEST_ADAPTER)]
    return [
        run / BEST,
        run / BASE,
        run / FINAL,
        *(directory / name for directory in directories for name in (WEIGHTS, CONFIG)),
    ]


def keep_base(settings: Settings, run: Path, offline: bool = False) -> Settings:
    """The settings, with a base that is itself an adapter replaced by a merged model in the run's directory.

    An adapter names its base model, and no command opens an adapter whose base is an adapter. Raises ResourceError if
    the disk is full.
    """
    if not settings.lora or settings.ckpt is None or not is_adapter(paths.expand(settings.ckpt)):
        return settings
    merged = load_plain(settings.model, ckpt=settings.ckpt, device="cpu", offline=offline)
    template = read_metadata(settings.ckpt).template
    base = (run / BASE).absolute()
    save_checkpoint(merged, base, template=template, provenance={"adapter": settings.ckpt})
    return replace(settings, model=None, ckpt=str(base))


def writer_of(checkpoint: Path) -> str | None:
    """The directory of the run that wrote a checkpoint; None if the file is not there or does not say it."""
    try:
        run = read_metadata(checkpoint).provenance.get(RUN)
    except (GPT2Error, OSError):
        return None
    return run if isinstance(run, str) else None


def check_replaceable(out: Path, run: Path, force: bool) -> None:
    """Raise UsageError if there is a file at `out`, unless this run wrote it or `force` allows to replace it."""
    if not force and os.path.lexists(out) and writer_of(out) != str(run.resolve()):
        outputs.check_free(out, force)


@dataclass(frozen=True)
class FinalWeights:
    """The weights at the end of a run, with adapters merged."""

    model: GPT
    template: dict[str, str] | None
    provenance: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write a checkpoint. Raises ResourceError if that fails, and DivergedError if a weight is not finite."""
        save_checkpoint(self.model, path, template=self.template, provenance=self.provenance)


@dataclass(frozen=True)
class WeightsWriter:
    """Writes the weights of a run, with the prompt template and the provenance.

    run  the run's directory
    """

    model: GPT
    settings: Settings
    splits: Splits
    run: Path

    @property
    def best(self) -> Path:
        """The file with the weights of the lowest validation loss; with LoRA, the directory of the adapter."""
        return self.run / (BEST_ADAPTER if self.settings.lora else BEST)

    def handle(self, event: Event) -> None:
        """Write the weights after an evaluation that is the best so far. Raises ResourceError if the disk is full.

        Writes none with `--save-every 0`, before the first step, when the weights are those of the base, and after the
        last step, when they are the final ones.

        The checkpoint from before the fall of the learning rate gets a copy of the best weights until then. A run that
        goes on from there takes this copy back: those from the fall are not its own.
        """
        match event:
            case Started():
                with disk_errors(self.run):
                    for file in kept_files(self.run):  # unfinished files of killed processes
                        atomic.sweep(file)
                checkpoint = checkpoint_at(self.run / "checkpoints", event.step)
                if self._has_best(checkpoint):
                    self._copy_best(checkpoint, self.run)
                elif event.before_fall:  # killed before the copy was complete
                    self._keep_best(checkpoint)
            case Saved(before_fall=True):
                self._keep_best(event.path)
            case Evaluated(best=True, is_final=False) if event.step and self.settings.train.save_every != 0:
                known = self._provenance(event.step, {"val": event.val_loss})
                try:
                    if self.settings.lora:
                        self._write_adapter(self.best, known)
                    else:
                        save_checkpoint(self.model, self.best, template=self._template, provenance=known)
                except ResourceError as error:
                    raise ResourceError(f"{error}; the last checkpoint is intact") from None

    def final(self, finished: Finished, base_is_rounded: bool = False) -> FinalWeights:
        """The final weights. With LoRA, writes the adapter into the run's directory. Raises ResourceError.

        The model cannot be trained further afterwards: its adapter is merged in place.
        """
        model, losses = self.model, {"train": finished.final_train_loss, "val": finished.final_val_loss}
        known = self._provenance(finished.steps, losses)
        if self.settings.lora:
            adapter = self.run / ADAPTER
            self._write_adapter(adapter, known)
            known["adapter"] = str(adapter.absolute())  # for `gpt2 export --format peft`
            if base_is_rounded:  # merge into the exact weights of the base
                model = load_plain(ckpt=adapter, device="cpu", offline=True)
            else:
                merge_lora(model)
        return FinalWeights(model, self._template, known)

    def delete_best(self) -> None:
        """Delete the weights with the lowest validation loss: the final ones are as good.

        Deletes no file that this run did not write, such as one in a directory that the user chose for the run.
        """
        if writer_of(self.best) != str(self.run.resolve()):
            return
        if self.settings.lora:
            shutil.rmtree(self.best, ignore_errors=True)
        else:
            with suppress(OSError):
                self.best.unlink(missing_ok=True)

    def _keep_best(self, checkpoint: Path) -> None:
        """Copy the best weights into a checkpoint, if this run wrote any. Raises ResourceError."""
        if self._has_best(self.run) and writer_of(self.best) == str(self.run.resolve()):
            self._copy_best(self.run, checkpoint)

    def _copy_best(self, source: Path, target: Path) -> None:
        copy = target / self.best.name
        with disk_errors(copy):
            if self.settings.lora:
                copy.mkdir(exist_ok=True)
            for name in self._best_files:
                with writing(target / name) as temporary:
                    shutil.copyfile(source / name, temporary)

    def _has_best(self, directory: Path) -> bool:
        return all((directory / name).is_file() for name in self._best_files)

    @property
    def _best_files(self) -> list[str]:
        """The files of the best weights, relative to the directory of the run or of a checkpoint."""
        return [f"{BEST_ADAPTER}/{name}" for name in (WEIGHTS, CONFIG)] if self.settings.lora else [BEST]

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
        return {
            "settings": self.settings.as_dict(),
            "data": self.splits.info,
            "step": step,
            "losses": losses,
            RUN: str(self.run.resolve()),
        }
