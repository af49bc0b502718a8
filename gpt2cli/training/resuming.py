"""How a run is resumed: its settings, its newest whole checkpoint, and the check that both belong together.

A resumed run learns the same weights as an unbroken run, to the bit, if it computes on the same device with the same
`--threads` and `--compile`:

- A checkpoint holds all that changes from step to step: the weights that are trained, the optimizer's state and the
  counters (run_checkpoints.py, state_json.py).
- No random state is saved, because none is carried from step to step. The order of the records, the dropout and the
  tokens of the sampled softmax are computed from the seed and the number of the step (engine.py, data/batches.py).
- Gradients are added up in the same order every time, also on CUDA (`repeatable` in model/device.py).
- Evaluating, sampling and saving do not change the model.
- A checkpoint is written under a temporary name, synced to disk and then renamed. If its checksums show damage, the
  run resumes from the checkpoint before it.
- The files of the run directory are cut back to the step of the checkpoint (run_directory.py).
- A run is resumed only with the same settings, data, base model and number of processes. `settings_of` refuses options
  with other values, except for CHANGEABLE and the length. `check_identity` compares the identity that each checkpoint
  holds: the values and checksums of what influences the weights.

`--epochs` and `--max-steps` change the length of a run. Only what depends on the length forbids that: the learning rate
after the warm-up unless it is constant, a warm-up that is longer than the run, and the sampled softmax, which ends
before the run does. A run of 2 epochs that is extended to 4 learns the same weights as a run of 4 epochs, to the bit.
With `--patience`, it may end after another step: the evaluations of the shorter run count.
"""

from collections.abc import Callable, Set
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gpt2cli import untrusted
from gpt2cli.config import TrainConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.training.checkpoint_directories import step_of
from gpt2cli.training.run_checkpoints import Resumable, read_newest, read_state
from gpt2cli.training.runs import read_config
from gpt2cli.training.settings import Settings

CHANGEABLE = ("out", "wandb_project", "keep_states")
"""Settings that may change when a run is resumed."""
LENGTH = ("epochs", "max_steps")
"""The settings with the length of a run."""


def named_checkpoint(path: Path) -> Path | None:
    """The absolute path of a checkpoint such as `RUN/checkpoints/step-00000120`; None for the path of a run."""
    path = path.absolute()
    is_run = untrusted.is_file(path / "config.json")
    return path if step_of(path) is not None and path.parent.name == "checkpoints" and not is_run else None


def run_of(path: Path) -> Path:
    """The run's directory. `path` is this directory or one of its checkpoints."""
    checkpoint = named_checkpoint(path)
    return path if checkpoint is None else checkpoint.parent.parent


def settings_of(run: Path, asked: Settings, given: Set[str]) -> Settings:
    """The settings in a run's config.json, with the changes that the user asked for and that are possible.

    given  the names of those in `asked` that the user gave

    Raises CheckpointError if the user gave another value for a setting that cannot change.
    """
    then = Settings.from_dict(read_config(run))
    before, now = then.by_option(), asked.by_option()
    changed = [name for name in sorted(given & set(now) - set(LENGTH)) if before[name] != now[name]]
    if changed:
        shown = untrusted.shown
        said = "; ".join(f"{name} was {shown(before[name])}, is {shown(now[name])}" for name in changed)
        raise CheckpointError(f"cannot resume {run} with other settings: {said}: leave them out")
    train = _with_length(then.train, asked.train, given)
    if train != then.train and (why := _fixed_length(then.train)):
        raise cannot_extend(run, then, train, why)
    kept = {name: getattr(asked, name) for name in CHANGEABLE if name in given}
    return replace(then, train=train, **kept)


def _with_length(then: TrainConfig, asked: TrainConfig, given: Set[str]) -> TrainConfig:
    """The training config with the length that the user gave, if any. `--max-steps` has precedence over `--epochs`."""
    if "max_steps" in given:
        return replace(then, max_steps=asked.max_steps)
    return replace(then, epochs=asked.epochs, max_steps=None) if "epochs" in given else then


def _fixed_length(config: TrainConfig) -> str:
    """Why the length of a run with this config cannot change; an empty text if it can."""
    if config.schedule != "constant":
        return f"its learning rate falls to 0 at its end, because of --schedule {config.schedule}"
    return "its loss depends on its length, because of --sampled-softmax" if config.sampled_softmax else ""


def cannot_extend(run: Path, then: Settings, train: TrainConfig, why: str) -> CheckpointError:
    """The error for a run with the settings `then` that cannot get the length in `train`. Names what can be done."""
    name = "max_steps" if train.max_steps is not None else "epochs"
    wanted = getattr(train, name)
    more = wanted - (getattr(then.train, name) or 0)
    data = f" --data {then.data}" if then.data else ""
    length = f"--{name.replace('_', '-')} {more if more > 0 else wanted}"
    return CheckpointError(
        f"cannot extend {run}: {why}. Only a run with --schedule constant --keep-states can be extended. To train the "
        f"result further: gpt2 finetune --ckpt {then.out}{data} {length} --out FILE"
    )


def with_length_of(settings: Settings, found: Resumable, run: Path) -> Resumable:
    """The checkpoint as one of a run with the length in `settings`, if that is possible: see the module's docstring.

    Raises CheckpointError if the checkpoint was saved during the warm-up, which must fit into the run.
    """
    length = {name: getattr(settings.train, name) for name in LENGTH}
    same = all(found.identity.get(name) == value for name, value in length.items())
    if same or _fixed_length(settings.train):
        return found
    warmup = settings.train.warmup or 0  # of a run that has begun, the number is known
    if found.counters.step <= warmup:
        why = f"its warm-up of {warmup} steps was not over after step {found.counters.step}"
        raise cannot_extend(run, Settings.from_dict(read_config(run)), settings.train, why)
    return replace(found, identity=found.identity | length)


def check_settings(settings: Settings, found: Resumable) -> None:
    """Raise CheckpointError if a checkpoint was made with other settings. Needs neither the model nor the data."""
    now = settings.identity()
    if settings.from_scratch:
        now |= {name: value for name, value in asdict(settings.from_scratch).items() if name != "dropout"}
    check_identity(found, found.identity | {name: now[name] for name in now if name in found.identity})


def check_identity(found: Resumable, identity: dict[str, Any]) -> None:
    """Raise CheckpointError if a checkpoint belongs to a run with another identity."""
    if changed := differences(found.identity, identity):
        raise CheckpointError(f"cannot resume {found.path}: {'; '.join(changed)}: start a new run, or undo that")


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The differences between the identities of two runs, in words."""
    if "optimizer" in now:  # checkpoints of version 0.1 do not have it: it was always AdamW
        then = {"optimizer": TrainConfig.optimizer} | then
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    digests = {"data": "the data has changed", "base": "the model that the adapter is for has changed"}
    shown = untrusted.shown
    return [digests.get(key, f"{key} was {shown(then.get(key))}, is {shown(now.get(key))}") for key in keys]


def find_checkpoint(path: Path, note: Callable[[str], None]) -> Resumable | None:
    """The checkpoint that `path` names, or the newest whole one of the run; None if the run has none yet.

    `note` receives the error of each newer one that is damaged. Raises CheckpointError if the named one is damaged, or
    all of them are.
    """
    checkpoint = named_checkpoint(path)
    if checkpoint:
        return read_state(checkpoint)
    first_error = None
    for found in read_newest(path / "checkpoints"):
        if isinstance(found, Resumable):
            return found
        note(f"{found}: trying the one before")
        first_error = first_error or found
    if first_error:
        raise CheckpointError(f"every checkpoint in {path} is damaged ({first_error}): start a new run")
    note(f"{path} has no checkpoint yet: starting from the beginning")
    return None
