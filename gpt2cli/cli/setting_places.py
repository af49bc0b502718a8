"""Where the settings of a run stand in its `config.json`, and which options of `gpt2 finetune` set them.

A place is written as `train.learning_rate`: the entry `learning_rate` in the group `train`.
"""

from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from functools import cache
from typing import Any, get_args

from gpt2cli.training.settings import Settings

RENAMED = {"lr": "learning_rate", "sample_prompt": "sample_prompts"}
"""The settings of the options with another name."""


def group_at(name: str) -> Any:
    """The dataclass whose fields the group `name` of a `config.json` has; None if no group has this name."""
    kind = {each.name: each.type for each in fields(Settings)}.get(name)
    return next((each for each in (kind, *get_args(kind)) if is_dataclass(each)), None)


def names_in(group: str) -> list[str]:
    """The names of the entries in a group; with an empty text, in the whole file."""
    return [each.name for each in fields(group_at(group) if group else Settings)]


@cache
def all_places() -> dict[str, str]:
    """The name of the option for every place, such as `lora_rank` for `lora.rank`. Some have none in the end."""
    options = {setting: option for option, setting in RENAMED.items()}
    named = {place: str(field.metadata.get("name") or field.name) for place, field in _fields()}
    return {place: options.get(name, name) for place, name in named.items()}


def places_of(option: str) -> list[str]:
    """The places that an option sets, by the name of its parameter. A group is not a place."""
    return [place for place, named in all_places().items() if named == option]


def option_at(place: str) -> str:
    """The option that sets a place, such as `--lr`; any other text stays as it is."""
    return f"--{all_places()[place].replace('_', '-')}" if place in all_places() else place


def places_by_name() -> dict[str, str]:
    """All places, by all their names: the place, its last part and the option. The first place has precedence."""
    found: dict[str, str] = {}
    for place, option in all_places().items():
        for name in (place, place.rpartition(".")[2], option):
            found.setdefault(name, place)
    return found


def _fields() -> Iterator[tuple[str, Field[Any]]]:
    for each in fields(Settings):
        if group := group_at(each.name):
            yield from ((f"{each.name}.{field.name}", field) for field in fields(group))
        else:
            yield each.name, each
