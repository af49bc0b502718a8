"""The models that are compared: their files, their prompt templates, and the data that they were trained on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.config import DataConfig, TrainConfig
from gpt2cli.evaluation.evaluation_data import Instructions, Texts
from gpt2cli.evaluation.inputs import compared_models
from gpt2cli.prompts import ALPACA, PromptTemplate


@dataclass(frozen=True)
class Candidate:
    """One of the models.

    template    the prompt template of the evaluation: `tuned_in`, or one for all models
    trained_on  the training data, `Splits.info`, if the checkpoint names it
    settings    the settings of the training, if the checkpoint holds them
    tuned_in    the prompt template of the training; Alpaca's if the checkpoint holds none
    """

    spec: ModelSpec
    template: PromptTemplate = ALPACA
    trained_on: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    tuned_in: PromptTemplate = ALPACA

    @property
    def held_some_out(self) -> bool:
        """Whether the training may have held out some of its data for validation."""
        records = self.settings.get("records")
        return not isinstance(records, dict) or records.get("val_fraction") != 0

    def fingerprint(self) -> str:
        """sha256, in hex, of the files that the model is made of."""
        digest = hashlib.sha256()
        for path in self.spec.files():
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
            with path.open("rb") as file:
                while chunk := file.read(2**20):
                    digest.update(chunk)
        return digest.hexdigest()

    def was_trained_on(self, data: Instructions | Texts, path: Path) -> bool:
        """Whether the checkpoint says that the model was trained on some of this data, which was read from `path`."""
        fingerprint, source = self.trained_on.get("fingerprint"), self.trained_on.get("source")
        if isinstance(data, Instructions) and data.fingerprint and data.fingerprint == fingerprint:
            return data.split not in ("test", "val")
        return isinstance(source, str) and bool(source) and Path(source).absolute() == path.absolute()


def candidates(
    models: Sequence[str], ckpts: Sequence[str], machine: ModelSpec, template: PromptTemplate | None = None
) -> list[Candidate]:
    """The candidates for `inputs.compared_models`. A `template` replaces those of the checkpoints."""
    return [_candidate(spec, template) for spec in compared_models(models, ckpts, machine)]


def _candidate(spec: ModelSpec, template: PromptTemplate | None) -> Candidate:
    """The model with what its checkpoint says about it."""
    if spec.ckpt is None:
        return Candidate(spec, template or ALPACA)
    metadata = spec.metadata()
    tuned_in = metadata.prompt_template(spec.ckpt) or ALPACA
    found = (metadata.provenance.get(name) for name in ("data", "settings"))
    data, settings = (value if isinstance(value, dict) else {} for value in found)
    return Candidate(spec, template or tuned_in, data, settings, tuned_in)


_DIVISION: dict[str, tuple[type, ...]] = {
    "val_fraction": (int, float),
    "test_fraction": (int, float),
    "subset": (int, type(None)),
    "seed": (int,),
}
"""The fields of DataConfig in a checkpoint's settings, which say how its records were divided, and their types."""


def division(
    chosen: Sequence[Candidate], path: Path, block_size: int
) -> tuple[int, TrainConfig, DataConfig, PromptTemplate]:
    """The division of the records at `path` on which one of these models was trained, else `finetune`'s defaults.

    Returns the window, and the configs and the template for `read_data`.
    """
    for candidate in chosen:
        data, settings = candidate.trained_on, candidate.settings
        if data.get("kind") != "alpaca" or Path(str(data.get("source"))).absolute() != path.absolute():
            continue
        try:
            window, records = data["max_length"], settings["records"]
            if type(window) is not int or any(type(records[name]) not in kinds for name, kinds in _DIVISION.items()):
                continue
            train = TrainConfig(max_length=window, loss_on=data["loss_on"])
            return window, train, DataConfig(**records), candidate.tuned_in
        except (KeyError, TypeError, ValueError):  # written by hand, or by another version; UsageError is one
            continue
    return block_size, TrainConfig(), DataConfig(test_fraction=0), ALPACA
