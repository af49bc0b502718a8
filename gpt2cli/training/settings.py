"""What a run was asked to do: kept in its `config.json`, so that it can be resumed without saying it again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from gpt2cli import untrusted
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
            lora, shape, prompts = values["lora"], values["from_scratch"], values["sample_prompts"]
            template = values.get("template")
            return _typed(
                Settings,
                dict(values)
                | {
                    "train": _typed(TrainConfig, values["train"]),
                    "records": _typed(DataConfig, values["records"]),
                    "lora": None if lora is None else _typed(LoRAConfig, lora),
                    "from_scratch": None if shape is None else _typed(GPTConfig, shape),
                    "sample_prompts": tuple(prompts) if isinstance(prompts, list) else prompts,
                    "template": None if template is None else PromptTemplate.from_dict(template).to_dict(),
                },
            )
        except KeyError as error:
            reason = f"{error.args[0]} is missing"
        except (TypeError, UsageError, DataError) as error:
            reason = str(error)
        raise CheckpointError(f"the run's config.json is not one of gpt2 finetune ({reason}): start a new run")

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


_Made = TypeVar("_Made")


def _typed(cls: type[_Made], values: Any) -> _Made:
    """An object of a dataclass from values that may be of any type. Raises TypeError unless each fits its field."""
    if not isinstance(values, dict):
        raise TypeError(f"{cls.__name__} is {untrusted.shown(values)}")
    hints = get_type_hints(cls)
    for name, value in values.items():
        if name not in hints:
            raise TypeError(f"{untrusted.shown(name)} is no setting")
        if not _fits(value, hints[name]):
            raise TypeError(f"{name} is {untrusted.shown(value)}")
    return cls(**values)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type that a field of a config is declared with."""
    if isinstance(hint, UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(isinstance(each, str) for each in value)
    if get_origin(hint) is dict:
        return isinstance(value, dict) and all(isinstance(part, str) for item in value.items() for part in item)
    if hint in (int, float) and type(value) is int:
        return abs(value) < 2**63
    if isinstance(value, str) and "\0" in value:  # in no name of a file
        return False
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))
