"""What `--resume` can do with a run that is done."""

from dataclasses import replace
from pathlib import Path

from gpt2cli import untrusted
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.training.checkpoint_directories import checkpoints
from gpt2cli.training.resuming import cannot_extend
from gpt2cli.training.runs import is_done, read_config, read_summary
from gpt2cli.training.settings import Settings
from gpt2cli.training.weights_writer import ADAPTER, BEST, BEST_ADAPTER, writer_of


def complete_weights(run: Path, settings: Settings) -> Path | None:
    """The file with the final weights of a run that has nothing left to do; None if the run can go on.

    settings  those of the run, with the changes that the user asked for

    Raises UsageError or CheckpointError if the run is done, and the files that it kept are too few for these changes.
    """
    if not is_done(run):
        return None
    summary = read_summary(run)
    then = Settings.from_dict(read_config(run))
    weights = Path(summary.get("out") or then.out)  # summaries of version 0.1 have no `out`
    has_states = bool(checkpoints(run / "checkpoints"))
    if settings.train != then.train:
        stopped = "it stopped early (--patience)" if summary.get("reason") == "patience" else ""
        if stopped or not has_states:
            why = stopped or "it is done, and its optimizer states were deleted"
            raise cannot_extend(run, replace(then, out=str(weights)), settings.train, why)
        return None
    is_there = untrusted.is_file(weights) and writer_of(weights) in (None, str(run.resolve()))
    if is_there and settings.out in (then.out, str(weights)):
        return weights
    if has_states:
        return None
    if is_there:
        raise UsageError(f"{run} is done: to have its weights in {settings.out}, copy {weights}")
    others = [run / name for name in (BEST, ADAPTER, BEST_ADAPTER) if (run / name).exists()]
    left = f"--ckpt {others[0]} still opens other weights of the run" if others else "start a new run"
    raise CheckpointError(f"{run} is done, and its weights are no longer in {weights}: {left}")
