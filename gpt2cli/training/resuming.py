"""How a run is resumed: its settings, its newest whole checkpoint that fits, and the check that both belong together.

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
after the warm-up if the schedule is cosine or linear, a warm-up that is longer than the run, and the sampled softmax,
which ends before the run does. A run of 2 epochs that is extended to 4 learns the same weights as a run of 4 epochs, to
the bit. With `--patience`, it may end after another step: the evaluations of the shorter run count.

With `--schedule wsd`, the learning rate depends on the length only in its fall, at the end of the run. A checkpoint
says whether the fall had begun (`Counters.fall_began`). If it had, it fits only the length that it was saved with. The
engine saves a checkpoint after the last step before the fall, which stays beside the newest ones. A run that gets
another length goes on from the newest checkpoint from before the fall:

- Its files are cut back to that step. The best weights until then are in this checkpoint, because those from the fall
  have replaced them in the run (weights_writer.py).
- The new length is written to config.json before the first step. If the process is killed after that, the checkpoints
  from the fall of the shorter run do not fit any more, and the run resumes from before it again.
- Once the first checkpoint of the longer run is whole, those from the fall of the shorter run are deleted.
"""

from collections.abc import Callable, Set
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gpt2cli import untrusted
from gpt2cli.config import TrainConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.training.checkpoint_directories import step_of
from gpt2cli.training.optim import steps_before_fall
from gpt2cli.training.run_checkpoints import Resumable, read_newest, read_state
from gpt2cli.training.runs import read_config
from gpt2cli.training.settings import Settings
from gpt2cli.training.state_json import StateFile

CHANGEABLE = ("out", "wandb_project", "keep_states")
"""Settings that may change when a run is resumed."""
LENGTH = ("epochs", "max_steps")
"""The settings with the length of a run."""
_NEWER = ("optimizer", "cooldown")
"""Settings that checkpoints of early versions do not have. They had the values that are now the defaults."""


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
    if config.schedule in ("cosine", "linear"):
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
        f"cannot extend {run}: {why}. Only a run with --keep-states and --schedule constant or wsd can be extended. To "
        f"train the result further: gpt2 finetune --ckpt {then.out}{data} {length} --out FILE"
    )


def with_length_of(settings: Settings, found: Resumable, run: Path) -> Resumable:
    """The checkpoint as one of a run with the length in `settings`, if that is possible: see the module's docstring.

    Raises CheckpointError if the checkpoint was saved during the warm-up, which must fit into the run, or while the
    learning rate fell.
    """
    if _has_length(settings.train, found.identity) or _fixed_length(settings.train):
        return found
    warmup = settings.train.warmup or 0  # of a run that has begun, the number is known
    step, why = found.counters.step, ""
    if step <= warmup:
        why = f"its warm-up of {warmup} steps was not over after step {step}"
    elif found.counters.fall_began:
        why = f"its learning rate had begun to fall before step {step}"
    if why:
        raise cannot_extend(run, Settings.from_dict(read_config(run)), settings.train, why)
    return replace(found, identity=found.identity | {name: getattr(settings.train, name) for name in LENGTH})


def _has_length(config: TrainConfig, identity: dict[str, Any]) -> bool:
    """Whether a checkpoint with this identity is one of a run with the length in `config`."""
    return all(identity.get(name) == getattr(config, name) for name in LENGTH)


def check_length(found: Resumable, total_steps: int, config: TrainConfig) -> None:
    """Raise CheckpointError if a run of `total_steps` would not have reached the checkpoint in the same way."""
    taken, level = found.counters.step, steps_before_fall(total_steps, config)
    if taken > total_steps:
        problem = f"it has taken {taken} steps, and the length is now {total_steps}"
    elif config.schedule == "wsd" and taken > level and not found.counters.fall_began:
        problem = f"it has taken {taken} steps, and with the new length the learning rate falls after step {level}"
    else:
        return
    raise CheckpointError(f"cannot resume {found.path}: {problem}: ask for more")


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
    then = {name: getattr(TrainConfig, name) for name in _NEWER if name in now} | then
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    digests = {"data": "the data has changed", "base": "the model that the adapter is for has changed"}
    shown = untrusted.shown
    return [digests.get(key, f"{key} was {shown(then.get(key))}, is {shown(now.get(key))}") for key in keys]


def find_checkpoint(path: Path, config: TrainConfig, note: Callable[[str], None]) -> Resumable | None:
    """The checkpoint that `path` names, or the newest whole one that a run with `config` can resume from.

    Returns None if the run has no checkpoint yet. `note` receives the error of each newer one that is damaged. Raises
    CheckpointError if the named one is damaged, or the run has none that can be used.
    """
    checkpoint = named_checkpoint(path)
    if checkpoint:
        return read_state(checkpoint)
    unfit: list[int] = []  # the steps of newer ones from the fall of a run with another length

    def fits(state: StateFile) -> bool:
        if not state.counters.fall_began or _fixed_length(config) or _has_length(config, state.identity):
            return True
        unfit.append(state.counters.step)
        return False

    first_error = None
    for found in read_newest(path / "checkpoints", fits):
        if isinstance(found, Resumable):
            return replace(found, went_back=bool(unfit))
        note(f"{found}: trying the one before")
        first_error = first_error or found
    if unfit:
        why = f"its learning rate had begun to fall before step {unfit[0]}, and it has no whole checkpoint from before"
        raise cannot_extend(path, Settings.from_dict(read_config(path)), config, why)
    if first_error:
        raise CheckpointError(f"every checkpoint in {path} is damaged ({first_error}): start a new run")
    note(f"{path} has no checkpoint yet: starting from the beginning")
    return None
