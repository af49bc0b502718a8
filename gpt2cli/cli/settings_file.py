"""Reads the file of `gpt2 finetune --config`, which is untrusted."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from gpt2cli import paths, untrusted
from gpt2cli.cli.finetune_settings import given_names, refuse_idle, settings_from
from gpt2cli.cli.setting_places import group_at, names_in, places_by_name
from gpt2cli.errors import DataError, ResourceError, UsageError
from gpt2cli.prompts import check_fields
from gpt2cli.suggestions import advise, did_you_mean_file, meant
from gpt2cli.training.runs import all_runs, find_run
from gpt2cli.training.stored_json import read_object


def read_settings(choice: str, options: Collection[str]) -> dict[str, Any]:
    """The settings in a file, or in the `config.json` of a run. Some or all settings may be missing.

    choice   the file's path, or the directory or the name of a run
    options  the parameters of the command

    Raises UsageError if there is no such file, or for an unknown or a wrong setting in it, and ResourceError.
    """
    file = _find(choice)
    try:
        values = read_object(file)
    except OSError as error:
        raise ResourceError(f"cannot read {file} ({error.strerror or error})") from None
    except ValueError as error:
        example = '{"train": {"epochs": 2}}'
        raise UsageError(f"{file} holds no settings ({error}): write JSON such as {example}") from None
    try:
        _check_names(values, options)
        settings = settings_from(values)
        check_fields(settings.prompt_template)
        given, is_new = given_names((), settings), settings.from_scratch is not None
        refuse_idle(given, settings.lora is not None, is_new, settings.train.schedule)
    except (UsageError, DataError) as error:
        raise UsageError(f"{file}: {error}") from None
    return values


def _find(choice: str) -> Path:
    path = paths.expand(choice)
    if untrusted.is_file(path):
        return path
    run = find_run(choice)
    if untrusted.is_directory(run):
        if untrusted.is_file(run / "config.json"):
            return run / "config.json"
        raise UsageError(f"{run} holds no run: it has no config.json")
    guess = did_you_mean_file(path, (".json",), [each.name for each in all_runs()])
    reason = untrusted.missing(path)
    raise UsageError(f"{choice} is {reason}: {advise(guess, 'give --config a JSON file or a run')}")


def _check_names(values: Mapping[str, Any], options: Collection[str]) -> None:
    """Raise UsageError for the first entry that is no setting."""
    for name, value in values.items():
        if name not in names_in(""):
            raise _unknown("", name, options)
        for inner in value if group_at(name) and isinstance(value, dict) else ():
            if inner not in names_in(name):
                raise _unknown(name, inner, options)


def _unknown(group: str, name: str, options: Collection[str]) -> UsageError:
    """The error about an unknown entry of a group, or of the whole file. It says which one was probably meant."""
    plain, named = name.lstrip("-").replace("-", "_"), places_by_name()
    within = f"{group}." if group else ""
    if plain in named:
        advice = f"write it as {_as_json(named[plain])}"
    elif plain in options:
        advice = f"it is not a setting of a run: give --{plain.replace('_', '-')} on the command line"
    elif guess := meant(name, names_in(group)):
        advice = f"did you mean {within}{guess}?"
    elif guess := meant(name, named):
        advice = f"did you mean {named[guess]}?"
    else:
        advice = "the config.json of a run has all settings"
    return UsageError(f"there is no setting {within}{untrusted.shown_name(name)}: {advice}")


def _as_json(place: str) -> str:
    group, _, name = place.rpartition(".")
    return f'{{"{group}": {{"{name}": ...}}}}' if group else f'{{"{name}": ...}}'
