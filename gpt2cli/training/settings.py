"""The settings of a run. Its `config.json` keeps them, so that `--resume` needs no other options."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from gpt2cli.config import FINETUNED, DataConfig, GPTConfig, LoRAConfig, TrainConfig
from gpt2cli.data.columns import checked, columns_text
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

    model: str | None
    ckpt: str | None
    data: str | None  # None: Alpaca, downloaded and prepared if necessary
    train: TrainConfig
    records: DataConfig
    lora: LoRAConfig | None = None
    from_scratch: GPTConfig | None = None
    precision: str = "auto"
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

    def as_dict(self) -> dict[str, Any]:
        """The content of `config.json`."""
        return asdict(self) | {"sample_prompts": list(self.sample_prompts)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Settings":
        """The settings in a `config.json`. Raises CheckpointError if a setting is missing, unknown or wrong."""
        try:
            if missing := {each.name for each in fields(Settings)} - _NEWER - set(values):
                raise TypeError(f"{min(missing)} is missing")
            settings: Settings = typed(values, Settings, "it")
            if any("\0" in (place or "") for place in (settings.model, settings.ckpt, settings.data, settings.out)):
                raise TypeError("a path contains a zero byte")
            columns = None if settings.columns is None else checked(settings.columns)
            template = None if settings.template is None else settings.prompt_template.to_dict()
        except (TypeError, UsageError, DataError) as error:
            raise CheckpointError(
                f"the run's config.json is not one of gpt2 finetune ({error}): start a new run"
            ) from None
        return replace(settings, template=template, columns=columns)

    def by_option(self) -> dict[str, Any]:
        """The settings that a resumed run cannot change, by the names of their options, such as `lora_rank`."""
        groups = ("train", "records", "lora", "from_scratch", "out", "wandb_project", "keep_states")
        return {
            **asdict(self.from_scratch or GPTConfig()),
            **asdict(self.records),
            **asdict(self.train),
            **{f"lora_{name}": value for name, value in asdict(self.lora or LoRAConfig()).items()},
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
