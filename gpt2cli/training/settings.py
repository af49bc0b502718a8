"""The settings of a run. Its `config.json` keeps them, so that `--resume` needs no other options."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from gpt2cli import untrusted
from gpt2cli.config import FINETUNED, DataConfig, GPTConfig, LoRAConfig, TrainConfig
from gpt2cli.errors import CheckpointError, DataError, UsageError
from gpt2cli.prompts import ALPACA, PromptTemplate

_NEWER = {"out", "wandb_project", "template"}
"""Settings that the config.json of an early version may lack."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a run. It starts from `model` or `ckpt`, or from a new model of the shape `from_scratch`."""

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
    sample_prompts: tuple[str, ...] = ()
    out: str = FINETUNED
    wandb_project: str | None = None
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
            settings = _object(Settings, values)
            template = None if settings.template is None else settings.prompt_template.to_dict()
        except (TypeError, UsageError, DataError) as error:
            raise CheckpointError(
                f"the run's config.json is not one of gpt2 finetune ({error}): start a new run"
            ) from None
        return replace(settings, template=template)

    def by_option(self) -> dict[str, Any]:
        """The settings that a resumed run cannot change, by the names of their options, such as `lora_rank`."""
        groups = ("train", "records", "lora", "from_scratch", "out", "wandb_project")
        return {
            **asdict(self.from_scratch or GPTConfig()),
            **asdict(self.records),
            **asdict(self.train),
            **{f"lora_{name}": value for name, value in asdict(self.lora or LoRAConfig()).items()},
            **{name: value for name, value in self.as_dict().items() if name not in groups},
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


_Made = TypeVar("_Made")


def _object(cls: type[_Made], values: Mapping[str, Any]) -> _Made:
    """A dataclass object from JSON values of any type. Raises TypeError unless each value fits its field."""
    hints = get_type_hints(cls)
    if unknown := set(values) - set(hints):
        raise TypeError(f"{untrusted.shown(min(unknown))} is no setting")
    return cls(**{name: _value(name, value, hints[name]) for name, value in values.items()})


def _value(name: str, value: Any, hint: Any) -> Any:
    """A field's value from its JSON value. Raises TypeError if the field cannot have it."""
    for kind in get_args(hint) if isinstance(hint, UnionType) else (hint,):
        if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, dict):
            return _object(kind, value)
        if get_origin(kind) is tuple and isinstance(value, list) and all(isinstance(each, str) for each in value):
            return tuple(value)
        if _fits(value, kind):
            return value
    raise TypeError(f"{name} is {untrusted.shown(value)}")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value is one of a field's type that JSON has too."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(isinstance(part, str) for item in value.items() for part in item)
    if kind in (int, float) and type(value) is int:
        return abs(value) < 2**63
    if isinstance(value, bool):  # to Python, it is an int
        return kind is bool
    return isinstance(value, get_origin(kind) or kind) and not (kind is str and "\0" in value)  # as in no path
