"""The models that are compared: where each is, how it is asked, and what it has learned from."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gpt2cli.checkpoints import adapters
from gpt2cli.checkpoints.load import load, load_plain
from gpt2cli.checkpoints.metadata import read_metadata
from gpt2cli.checkpoints.places import find_base
from gpt2cli.config import DataConfig, TrainConfig
from gpt2cli.errors import CheckpointError, DataError
from gpt2cli.evaluation.evaluation_data import Instructions, Texts
from gpt2cli.inference.decoder import Decoder
from gpt2cli.paths import expand
from gpt2cli.progress import Progress, ignore
from gpt2cli.prompts import ALPACA, PromptTemplate


@dataclass(frozen=True)
class Machine:
    """Where and in what to compute, and whether the network may be used."""

    device: str = "auto"
    precision: str = "auto"
    offline: bool = False


@dataclass(frozen=True)
class Candidate:
    """One of the models, by the name that it was given.

    model, ckpt  what `load` takes
    template     how it is asked: as it was tuned, or in Alpaca's template, or in another that was asked for
    tuned_in     the template that it was tuned in; Alpaca's if it does not say
    trained_on   what it says of its training data, if it does: `Splits.info`
    settings     and of its training
    """

    name: str
    model: str | None
    ckpt: str | None
    machine: Machine
    template: PromptTemplate = ALPACA
    trained_on: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    tuned_in: PromptTemplate = ALPACA

    def load(self, progress: Progress = ignore) -> Decoder:
        """The model, ready to run. Raises what `checkpoints.load.load` raises."""
        machine = self.machine
        return load(
            self.model,
            ckpt=self.ckpt,
            device=machine.device,
            precision=machine.precision,
            offline=machine.offline,
            for_text=True,
            progress=progress,
        )

    def block_size(self, progress: Progress = ignore) -> int:
        """The model's window. The model is loaded for this, by memory map, so a bad one is found at once."""
        at = {"device": "cpu", "offline": self.machine.offline, "for_text": True}
        return load_plain(self.model, ckpt=self.ckpt, progress=progress, **at).config.block_size  # type: ignore[arg-type]

    def fingerprint(self) -> str:
        """sha256, in hex, of the files that it is made of. Weights may take their config from the file beside them."""
        digest = hashlib.sha256()
        for path in self._files():
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
            with path.open("rb") as file:
                while chunk := file.read(2**20):
                    digest.update(chunk)
        return digest.hexdigest()

    def _files(self) -> list[Path]:
        path = None if self.ckpt is None else expand(self.ckpt)
        if path is None or self.model is not None:
            found = find_base(str(self.model), self.machine.offline, ignore)
            base = [found] if found.is_file() else _weights(found)
        elif adapters.is_adapter(path):
            found = find_base(str(adapters.read_adapter(path).base), self.machine.offline, ignore)
            base = [found] if found.is_file() else _weights(found)
        else:
            base = []
        if path is None:
            return base
        return base + (_weights(path) if path.is_dir() else [path, *path.parent.glob("config.json")])

    def has_learned(self, data: Instructions | Texts, path: Path) -> bool:
        """Whether the model says that it was trained on some of this data."""
        source = self.trained_on.get("source")
        if isinstance(data, Instructions) and data.fingerprint and self.trained_on.get("fingerprint"):
            same_division = data.fingerprint == self.trained_on["fingerprint"]
            if same_division and data.split in ("test", "val"):
                return False
            if same_division:
                return True
        return isinstance(source, str) and bool(source) and Path(source).absolute() == path.absolute()


def _weights(directory: Path) -> list[Path]:
    return sorted([*directory.glob("*.safetensors"), *directory.glob("*config.json")])


def candidates(
    models: Sequence[str], ckpts: Sequence[str], machine: Machine, template: PromptTemplate | None = None
) -> list[Candidate]:
    """Models first, so that a base model is what the others are compared with.

    An adapter goes onto the model, if a single one is given, and otherwise onto the one that it names itself. With a
    `template` all are asked in that one.
    """
    base = models[0] if len(models) == 1 else None
    found = [
        *(Candidate(name, name, None, machine) for name in models),
        *(_from_checkpoint(ckpt, base, machine) for ckpt in ckpts),
    ]
    return found if template is None else [replace(candidate, template=template) for candidate in found]


def _from_checkpoint(ckpt: str, base: str | None, machine: Machine) -> Candidate:
    facts = read_metadata(ckpt)
    try:
        template = ALPACA if facts.template is None else PromptTemplate.from_dict(facts.template)
    except DataError as error:
        raise CheckpointError(f"{ckpt}: {error}") from None
    told = {name: facts.provenance.get(name) for name in ("data", "settings")}
    data, settings = (value if isinstance(value, dict) else {} for value in told.values())
    adapted = base if adapters.is_adapter(expand(ckpt)) else None
    return Candidate(ckpt, adapted, ckpt, machine, template, data, settings, template)


_DIVISION: dict[str, tuple[type, ...]] = {
    "val_fraction": (int, float),
    "test_fraction": (int, float),
    "subset": (int, type(None)),
    "seed": (int,),
}
"""The fields of DataConfig, by which a checkpoint says how its records were divided, and their types."""


def division(
    chosen: Sequence[Candidate], path: Path, block_size: int
) -> tuple[int, TrainConfig, DataConfig, PromptTemplate]:
    """How the records at `path` were divided when one of these learned from them, else as `finetune` would by itself:
    the window, and the configs and the template for `load_data`."""
    for candidate in chosen:
        told, settings = candidate.trained_on, candidate.settings
        if told.get("kind") != "alpaca" or Path(str(told.get("source"))).absolute() != path.absolute():
            continue
        try:
            window, records = told["max_length"], settings["records"]
            if type(window) is not int or any(type(records[name]) not in kinds for name, kinds in _DIVISION.items()):
                continue
            train = TrainConfig(max_length=window, loss_on=told["loss_on"])
            return window, train, DataConfig(**records), candidate.tuned_in
        except (KeyError, TypeError, ValueError):  # written by hand, or by another version; UsageError is one
            continue
    return block_size, TrainConfig(), DataConfig(test_fraction=0), ALPACA
