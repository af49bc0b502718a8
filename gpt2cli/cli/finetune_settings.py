"""Makes the settings of a run from the options of `gpt2 finetune`."""

import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2cli import paths, untrusted
from gpt2cli.bounds import FieldError, check
from gpt2cli.config import DataConfig, GPTConfig, LoRAConfig, TrainConfig
from gpt2cli.data.columns import parse_columns
from gpt2cli.errors import UsageError
from gpt2cli.outputs import check_checkpoint, check_free
from gpt2cli.prompts import read_template
from gpt2cli.published import PUBLISHED, TINY

if TYPE_CHECKING:
    from gpt2cli.training.settings import Settings

TRAIN, RECORDS, LORA, SHAPE = TrainConfig(), DataConfig(), LoRAConfig(), GPTConfig()
MAX_SIZE = 2**24
"""The largest number of blocks, heads, channels or positions of a new model. No machine can hold more."""
SHAPE_OPTIONS = ("n_layer", "n_head", "n_embd", "block_size")
LORA_OPTIONS = ("lora_rank", "lora_alpha")
WANDB_PROJECT = "gpt2cli"
START = ("model", "ckpt", "from_scratch")
"""The settings that say which model a run starts from."""


def refuse_idle(given: Collection[str], lora: bool, from_scratch: bool, schedule: str) -> None:
    """Raise UsageError for given settings that have no effect. `given` has the names of their options."""
    for names, has_effect, why in (
        (set(LORA_OPTIONS), lora, "has no effect without an adapter: add --lora"),
        ({"cooldown"}, schedule == "wsd", "has no effect on another schedule: add --schedule wsd"),
        (set(SHAPE_OPTIONS), from_scratch, "has no effect on an existing model: add --from-scratch"),
        (
            {"model", "ckpt", "lora"} if lora else {"model", "ckpt"},  # --no-lora fits to a new model
            not from_scratch,
            "is for an existing model, and --from-scratch makes a new one: leave one out",
        ),
    ):
        for name in sorted(names.intersection(given)):
            if not has_effect:
                raise UsageError(f"--{name.replace('_', '-')} {why}")


def given_names(typed: Collection[str], configured: "Settings | None") -> frozenset[str]:
    """The settings that the user gave, by typed options or in the file of --config.

    A `config.json` has all settings. Thus those of the settings `configured`, which such a file had a part in, count as
    given only if they are not the defaults.
    """
    from gpt2cli.cli.setting_places import RENAMED
    from gpt2cli.training.settings import Settings

    given = {RENAMED.get(name, "wandb_project" if name == "wandb" else name) for name in typed}
    if configured:
        defaults = Settings().by_option()
        given |= {name for name, value in configured.by_option().items() if value != defaults[name]}
    return frozenset(given)


def groups_of(typed: Mapping[str, Any]) -> dict[str, Any]:
    """An empty group for the adapter or the shape, if an option sets a part of it.

    A resumed run needs no --lora and no --from-scratch. The typed parts are compared with those of the run. The heads
    of a shape divide its channels, whichever of both is typed.
    """
    groups = {"lora": LORA_OPTIONS, "from_scratch": SHAPE_OPTIONS}
    found: dict[str, Any] = {group: {} for group, names in groups.items() if not set(names).isdisjoint(typed)}
    if "from_scratch" in found:
        found["from_scratch"] = {"n_head": 1, "n_embd": typed.get("n_head", 1)}
    return found


def absolute(place: str | None, names: Collection[str] = ()) -> str | None:
    """The absolute path of an existing file or directory. Other values, and `names`, stay as they are."""
    from gpt2cli.data.source import is_remote

    if not place or place in names or is_remote(place):
        return place
    path = paths.expand(place)
    return str(path.absolute()) if untrusted.is_file(path) or untrusted.is_directory(path) else place


def make_settings(typed: Mapping[str, Any], stored: Mapping[str, Any]) -> "Settings":
    """The settings of a new run.

    typed   the values of the options that were typed, by the names of their parameters
    stored  the settings from the file of --config, as in a `config.json`; the typed ones take their places

    Raises UsageError, which names the option, for a value out of its bounds.
    """
    from gpt2cli.cli.setting_places import all_places, option_at

    def named(name: str) -> str:
        return name if stored and all_places().get(name) not in typed else option_at(name)

    try:
        settings = settings_from(with_typed(stored, typed))
    except FieldError as error:
        names = " ".join(map(named, error.name.split(" ")))
        raise UsageError(f"{names} {error.problem} (see `gpt2 finetune --help`)") from None
    return replace(
        settings,
        model=absolute(settings.model, (*PUBLISHED, TINY)),
        ckpt=absolute(settings.ckpt),
        data=absolute(settings.data),
        out=str(paths.expand(settings.out).absolute()),
    )


def settings_from(values: Mapping[str, Any]) -> "Settings":
    """As `Settings.from_some`. Raises FieldError also for a new model that no machine can hold."""
    from gpt2cli.training.settings import Settings

    settings = Settings.from_some(values)
    for name, size in (asdict(settings.from_scratch) if settings.from_scratch else {}).items():
        check(size <= MAX_SIZE, f"from_scratch.{name}", f"at most {MAX_SIZE:,}", untrusted.shown(size))
    return settings


def with_typed(stored: Mapping[str, Any], typed: Mapping[str, Any]) -> dict[str, Any]:
    """The stored settings with the values of typed options in their places, and without what those replace."""
    from gpt2cli.cli.setting_places import places_of

    values: dict[str, Any] = {name: dict(value) if isinstance(value, dict) else value for name, value in stored.items()}
    if not typed.keys().isdisjoint(START):  # they choose together where the run starts
        values = {name: value for name, value in values.items() if name not in START or typed.get(name) is True}
    for group in ("lora", "from_scratch"):
        if group in typed:
            values[group] = (values.get(group) or {}) if typed[group] else None
    if "epochs" in typed and "max_steps" not in typed:  # max_steps would have precedence
        values.get("train", {}).pop("max_steps", None)
    tracked = _wandb_project(values.get("wandb_project"), typed)
    for option, value in typed.items():
        for place in places_of(option):
            group, _, name = place.rpartition(".")
            if not group:
                values[name] = _as_stored(option, value)
            elif group in ("train", "records") or values.get(group) is not None:
                values.setdefault(group, {})[name] = value
    return values | {"wandb_project": tracked}


def _as_stored(option: str, value: Any) -> Any:
    """The value of an option as `config.json` has it."""
    if option == "columns":
        return parse_columns(value)
    return read_template(value).to_dict() if option == "template" else value


def _wandb_project(stored: str | None, typed: Mapping[str, Any]) -> str | None:
    """The W&B project; None for a run that is not tracked."""
    is_tracked = typed.get("wandb", stored is not None)
    return typed.get("wandb_project", stored or WANDB_PROJECT) if is_tracked else None


def check_before_training(asked: "Settings", run: str | None, *, resume: bool, force: bool, device: str) -> None:
    """Raise the errors of a run that need neither torch nor a network: wrong names, wrong files, a wrong place.

    run    the value of RUN or --run-dir
    force  whether the file at `asked.out` may be replaced
    """
    from gpt2cli.checkpoints.model_spec import ModelSpec
    from gpt2cli.data.source import check_data
    from gpt2cli.training.run_lock import is_locked
    from gpt2cli.training.runs import check_any_run, check_new_run, check_run, find_run

    path, out = paths.expand(run).absolute() if run else None, Path(asked.out)
    if resume:
        check_any_run() if run is None else check_run(find_run(run))
        return
    if path is None or path not in out.parents:  # the run makes its directory
        check_checkpoint(out)
    check_free(out, force)
    # torchrun's first process may have begun the run, and begin() names a process that works on it
    if path is not None and os.environ.get("RANK", "0") == "0" and not is_locked(path):
        check_new_run(path)
    if asked.data is not None:
        check_data(asked.data)
    if asked.from_scratch is None:
        ModelSpec(asked.model, asked.ckpt, device).check()
