"""Which run and which checkpoint `--resume` goes on from, and whether that may be."""

from collections.abc import Callable, Set
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gpt2cli import untrusted
from gpt2cli.errors import CheckpointError
from gpt2cli.training import state
from gpt2cli.training.runs import read_config
from gpt2cli.training.settings import Settings
from gpt2cli.training.state import Resumable


def named_checkpoint(path: Path) -> Path | None:
    """The path, if it names a checkpoint of a run: `RUN/checkpoints/step-00000120`. None if it names a run."""
    path = path.absolute()
    is_run = untrusted.is_file(path / "config.json")
    return path if state.step_of(path) is not None and path.parent.name == "checkpoints" and not is_run else None


def run_of(path: Path) -> Path:
    """The directory of the run that `path` names by itself, or by one of its checkpoints."""
    checkpoint = named_checkpoint(path)
    return path if checkpoint is None else checkpoint.parent.parent


def settings_of(run: Path, asked: Settings, given: Set[str]) -> Settings:
    """The settings that a run was begun with. Raises CheckpointError if options that were typed say otherwise.

    given  names of the settings in `asked` that were typed; `out` and `wandb_project` may differ, and are taken over
    """
    then = Settings.from_dict(read_config(run))
    before, now = then.flat(), asked.flat()
    changed = [name for name in sorted(given & set(now)) if before[name] != now[name]]
    if changed:
        shown = untrusted.shown
        said = "; ".join(f"{name} was {shown(before[name])}, is {shown(now[name])}" for name in changed)
        advice = "leave them out"
        if {"epochs", "max_steps"} & set(changed):
            advice += f", or train the result further: gpt2 finetune --ckpt {then.out} {_more_training(before, now)}"
        raise CheckpointError(f"cannot resume {run} with other settings: {said}: {advice}")
    kept = {name: getattr(asked, name) for name in ("out", "wandb_project") if name in given}
    return replace(then, **kept)


def _more_training(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The option that adds the training that is missing from what is asked now, or all of it if nothing is."""
    name = "max_steps" if now["max_steps"] is not None else "epochs"
    more = now[name] - (before[name] or 0)
    return f"--{name.replace('_', '-')} {more if more > 0 else now[name]}"


def check_settings(settings: Settings, found: Resumable) -> None:
    """Raise CheckpointError if a checkpoint is of other settings. Neither the model nor the data is needed."""
    now = settings.identity()
    if settings.from_scratch:
        now |= {name: value for name, value in asdict(settings.from_scratch).items() if name != "dropout"}
    both = [name for name in now if name in found.identity]
    changed = state.differences({name: found.identity[name] for name in both}, {name: now[name] for name in both})
    if changed:
        raise CheckpointError(f"cannot resume {found.path}: {'; '.join(changed)}: start a new run, or undo that")


def find_checkpoint(path: Path, note: Callable[[str], None]) -> Resumable | None:
    """The checkpoint that was named, or the newest whole one of a run; None to begin anew, if there is none yet.

    `note` gets the error of each newer one that is damaged. Raises CheckpointError if the named one is damaged, or if
    all are.
    """
    checkpoint = named_checkpoint(path)
    if checkpoint:
        return state.read_state(checkpoint)
    newest = None
    for found in state.read_newest(path / "checkpoints"):
        if isinstance(found, Resumable):
            return found
        note(f"{found}: trying the one before")
        newest = newest or found
    if newest:
        raise CheckpointError(f"every checkpoint in {path} is damaged ({newest}): start a new run")
    note(f"{path} has no checkpoint yet: starting from the beginning")
    return None
