"""What the settings of a run may not ask for: errors that are known before anything is loaded."""

from collections.abc import Set
from pathlib import Path

from gpt2cli import paths
from gpt2cli.errors import UsageError
from gpt2cli.outputs import check_checkpoint
from gpt2cli.published import PUBLISHED, TINY
from gpt2cli.training.runs import check_new_run
from gpt2cli.training.settings import Settings
from gpt2cli.training.weights_writer import check_replaceable, kept_files


def check_new(settings: Settings, run: Path | None, given: Set[str]) -> None:
    """Raise UsageError if a new run cannot have these settings, or its directory holds a run already.

    run    the directory; None if another process has begun the run there
    given  the names of the settings that the user gave
    """
    if run:
        check_new_run(run)
    decided = sorted(given & {"loss_on", "val_fraction", "template", "columns"})
    if decided and settings.data_is_prepared:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in decided)
        raise UsageError(
            f"{names} cannot change prepared data: give it to `gpt2 prepare-alpaca`, or choose other --data"
        )


def check_places(settings: Settings, run: Path, force: bool) -> None:
    """Raise UsageError or ResourceError if the final weights or the checkpoints cannot be kept as the settings say."""
    check_out(settings, run)
    check_replaceable(Path(settings.out), run, force)
    if settings.keep_states and settings.train.save_every == 0:
        raise UsageError("--keep-states keeps checkpoints, and --save-every 0 saves none: leave one out")


def check_out(settings: Settings, run: Path) -> None:
    """Raise UsageError or ResourceError if the final weights cannot be written to `settings.out`."""
    out = Path(settings.out)
    if run.exists() or run.absolute() not in out.absolute().parents:  # a dry run does not make the run's directory
        check_checkpoint(out)
    if out.resolve() in [file.resolve() for file in kept_files(run)]:
        raise UsageError(f"the run keeps other weights in {out}: choose another --out")
    base = settings.ckpt or (None if settings.model in (*PUBLISHED, TINY) else settings.model)
    if settings.lora and base and paths.expand(base).resolve() in (out.resolve(), out.resolve().parent):
        raise UsageError(f"{out} belongs to the model that the adapter is for: choose another --out")
