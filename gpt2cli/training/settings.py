"""What a run was asked to do: kept in its `config.json`, so that it can be resumed without saying it again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gpt2cli.config import FINETUNED, DataConfig, GPTConfig, LoRAConfig, TrainConfig
from gpt2cli.errors import CheckpointError, DataError, UsageError
from gpt2cli.prompts import ALPACA, PromptTemplate

# what may differ between a run and its continuation: it changes what is shown and saved, not what is learned
_FREE = ("eval_every", "sample_every", "save_every", "patience")


@dataclass(frozen=True)
class Settings:
    """A run. `model` or `ckpt` is what it begins from, unless `from_scratch` gives the shape of a new model."""

    model: str | None
    ckpt: str | None
    data: str | None  # None: Alpaca, prepared if need be
    train: TrainConfig
    records: DataConfig
    lora: LoRAConfig | None = None
    from_scratch: GPTConfig | None = None
    precision: str = "auto"
    grad_checkpointing: bool = False
    skip_bad: bool = False
    sample_prompts: tuple[str, ...] = ()
    out: str = FINETUNED
    wandb_project: str | None = None
    template: dict[str, str] | None = None  # as PromptTemplate.to_dict has it; None: Alpaca's

    @property
    def prompt_template(self) -> PromptTemplate:
        """How instructions become prompts."""
        return ALPACA if self.template is None else PromptTemplate.from_dict(self.template)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"sample_prompts": list(self.sample_prompts)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Settings":
        """The settings that a `config.json` holds. Raises CheckpointError if it is no such thing."""
        try:
            lora, shape, template = values["lora"], values["from_scratch"], values.get("template")
            return Settings(
                **dict(values)
                | {
                    "train": TrainConfig(**values["train"]),
                    "records": DataConfig(**values["records"]),
                    "lora": LoRAConfig(**lora) if lora else None,
                    "from_scratch": GPTConfig(**shape) if shape else None,
                    "sample_prompts": tuple(values["sample_prompts"]),
                    "template": None if template is None else PromptTemplate.from_dict(template).to_dict(),
                }
            )
        except (KeyError, TypeError, UsageError, DataError) as error:
            raise CheckpointError(
                f"the run's config.json is not one of gpt2 finetune ({error}): start a new run"
            ) from None

    def flat(self) -> dict[str, Any]:
        """Every setting that bears on what is learned, by its own name."""
        groups = ("train", "records", "lora", "from_scratch", "out", "wandb_project")
        flat = {name: value for name, value in self.as_dict().items() if name not in groups}
        flat |= asdict(self.records) | asdict(self.train)
        flat |= {f"lora_{name}": value for name, value in asdict(self.lora or LoRAConfig()).items()}
        flat |= {name: value for name, value in asdict(self.from_scratch or GPTConfig()).items() if name not in flat}
        return flat | {"lora": self.lora is not None, "from_scratch": self.from_scratch is not None}

    def identity(self) -> dict[str, Any]:
        """What a checkpoint's continuation must share with it, in flat names."""
        train = {name: value for name, value in asdict(self.train).items() if name not in _FREE}
        lora = (
            {f"lora_{name}": value for name, value in asdict(self.lora).items()} if self.lora else {"lora_rank": None}
        )
        return train | lora | {"precision": self.precision}
