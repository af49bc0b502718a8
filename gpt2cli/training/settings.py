"""The settings of a run. Its `config.json` keeps them, so that `--resume` needs no other options."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from gpt2cli.bounds import FieldError
from gpt2cli.config import FINETUNED, FULL_RATE, DataConfig, GPTConfig, LoRAConfig, TrainConfig, TrainingPrecision
from gpt2cli.data.columns import checked, columns_text
from gpt2cli.data.kinds import is_prepared
from gpt2cli.errors import CheckpointError, DataError, UsageError
from gpt2cli.prompts import ALPACA, PromptTemplate
from gpt2cli.training.stored_json import typed

_NEWER = {"out", "wandb_project", "template", "columns", "keep_states"}
"""Settings that the config.json of an early version may lack."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a run. It starts from `model` or `ckpt`, or from a new model of the shape `from_scratch`.

    keep_states  whether the run keeps its checkpoints when it is done, so that it can be extended
    """

    model: str | None = None
    ckpt: str | None = None
    data: str | None = None  # None: Alpaca, downloaded and prepared if necessary
    train: TrainConfig = field(default_factory=TrainConfig)
    records: DataConfig = field(default_factory=lambda: DataConfig(test_fraction=0))
    lora: LoRAConfig | None = None
    from_scratch: GPTConfig | None = None
    precision: TrainingPrecision = "auto"
    grad_checkpointing: bool = False
    skip_bad: bool = False
    columns: dict[str, str] | None = None  # as from parse_columns; None: found by their names
    sample_prompts: tuple[str, ...] = ()
    out: str = FINETUNED
    wandb_project: str | None = None
    keep_states: bool = False
    template: dict[str, str] | None = None  # as from PromptTemplate.to_dict; None: Alpaca's

    @property
    def prompt_template(self) -> PromptTemplate:
        """How instructions become prompts. Raises DataError if `template` is not a template."""
        return ALPACA if self.template is None else PromptTemplate.from_dict(self.template)

    @property
    def data_is_prepared(self) -> bool:
        """Whether `gpt2 prepare-alpaca` has divided the data."""
        return self.data is None or is_prepared(Path(self.data))

    def as_dict(self) -> dict[str, Any]:
        """The content of `config.json`."""
        return asdict(self) | {"sample_prompts": list(self.sample_prompts)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Settings":
        """The settings in a run's `config.json`. Raises CheckpointError if a setting is missing, unknown or wrong."""
        try:
            if missing := {each.name for each in fields(Settings)} - _NEWER - set(values):
                raise FieldError(min(missing), "is missing")
            return _checked(values)
        except (UsageError, DataError) as error:
            raise CheckpointError(
                f"the run's config.json is not one of gpt2 finetune ({error}): start a new run"
            ) from None

    @staticmethod
    def from_some(values: Mapping[str, Any]) -> "Settings":
        """The settings of a new run, of which `values` has some, as in a `config.json`. The others have their defaults.

        Three defaults depend on other settings: the learning rate is that of LoRA if there is an adapter, the records
        have the seed of the training, and a new model has its dropout.

        Raises FieldError, which names the setting as in `train.epochs`, UsageError or DataError for a wrong one.
        """
        filled = dict(values)
        lora = typed(values.get("lora"), LoRAConfig | None, "lora")
        if isinstance(train := values.get("train", {}), dict):
            filled["train"] = train = {"learning_rate": lora.learning_rate if lora else FULL_RATE} | train
            defaults = TrainConfig()
            if isinstance(records := values.get("records", {}), dict):
                filled["records"] = {"test_fraction": 0, "seed": train.get("seed", defaults.seed)} | records
            if isinstance(shape := values.get("from_scratch"), dict):
                filled["from_scratch"] = {"dropout": train.get("dropout", defaults.dropout)} | shape
        return _checked(filled)

    def by_option(self) -> dict[str, Any]:
        """The settings that a resumed run cannot change, by the names of their options, such as `lora_rank`.

        Without an adapter or a new model, those of the adapter or of the shape are None.
        """
        groups = ("train", "records", "lora", "from_scratch", "out", "wandb_project", "keep_states")
        return {
            **{each.name: getattr(self.from_scratch, each.name, None) for each in fields(GPTConfig)},
            **asdict(self.records),
            **asdict(self.train),
            **{f"lora_{each.name}": getattr(self.lora, each.name, None) for each in fields(LoRAConfig)},
            **{name: value for name, value in self.as_dict().items() if name not in groups},
            "columns": columns_text(self.columns),
            "lora": self.lora is not None,
            "from_scratch": self.from_scratch is not None,
        }

    def identity(self) -> dict[str, Any]:
        """The settings that a checkpoint records. A run with other values cannot resume from it."""
        recorded = [each.name for each in fields(TrainConfig) if each.metadata["in_identity"]]
        lora = asdict(self.lora) if self.lora else {"rank": None}
        return {
            **{name: getattr(self.train, name) for name in recorded},
            **{f"lora_{name}": value for name, value in lora.items()},
            "precision": self.precision,
        }


def _checked(values: Mapping[str, Any]) -> Settings:
    """The settings with these values. Raises FieldError, UsageError or DataError for a wrong or an unknown one."""
    settings: Settings = typed(values, Settings)
    for name in ("model", "ckpt", "data", "out"):
        if "\0" in (getattr(settings, name) or ""):
            raise FieldError(name, "contains a zero byte, which no path can")
    columns = None if settings.columns is None else checked(settings.columns)
    template = None if settings.template is None else settings.prompt_template.to_dict()
    return replace(settings, template=template, columns=columns)
