"""The end of a run: its final weights are written, it is marked as done, and files that it no longer needs are deleted.

This happens in this order, so that a run whose process is killed can be resumed until it is marked as done.
"""

from pathlib import Path

from gpt2cli.errors import GPT2Error, ResourceError, UsageError
from gpt2cli.training.checkpoint_directories import checkpoints, delete_checkpoints
from gpt2cli.training.events import Finished
from gpt2cli.training.run_directory import RunDirectory
from gpt2cli.training.weights_writer import FINAL, WeightsWriter, check_replaceable

WORSE = 1.05
"""How many times the first validation loss the last one may be. A little more can be noise."""


def end_run(
    directory: RunDirectory, writer: WeightsWriter, finished: Finished, *, base_is_rounded: bool, force: bool
) -> None:
    """Write the final weights to `--out`, mark the run as done, and delete its checkpoints, unless --keep-states.

    Also deletes the weights with the lowest validation loss if the final ones are as good. If the final weights cannot
    be written to `--out`, writes them to RUN/final.pt, and raises ResourceError at the end.

    force  whether `--out` may be a file that another run, or anything else, wrote
    """
    out, problem = _save_final(writer, finished, base_is_rounded=base_is_rounded, force=force)
    directory.write_out(out, out if is_best(finished) else better_weights(writer, finished))
    if not writer.settings.keep_states:  # a run that can be extended also needs its best weights
        if is_best(finished):
            writer.delete_best()
        delete_checkpoints(directory.checkpoints)
    if problem:
        raise ResourceError(f"{problem}; the final weights are in {out}")


def is_best(finished: Finished) -> bool:
    """Whether the validation loss was never lower than after the last step."""
    return finished.final_val_step == finished.steps and not finished.got_worse


def is_much_worse(finished: Finished) -> bool:
    """Whether the validation loss rose above WORSE times that before training, which was the lowest."""
    best, final = finished.best_val_loss, finished.final_val_loss
    return finished.best_val_step == 0 and best is not None and final is not None and final > WORSE * best


def better_weights(writer: WeightsWriter, finished: Finished) -> Path | None:
    """The weights with the lowest validation loss, if they are not the final ones."""
    best = writer.best.absolute()  # --run-dir may be relative
    return best if finished.best_val_step and not is_best(finished) and best.exists() else None


def _save_final(
    writer: WeightsWriter, finished: Finished, *, base_is_rounded: bool, force: bool
) -> tuple[Path, GPT2Error | None]:
    """Write the final weights. Returns the file, and the error if it is not `--out`. Raises ResourceError."""
    out, problem = Path(writer.settings.out), None
    try:
        final = writer.final(finished, base_is_rounded)
        try:
            check_replaceable(out, writer.run, force)  # another process may have written it meanwhile
            final.save(out)
        except (ResourceError, UsageError) as error:
            out, problem = (writer.run / FINAL).absolute(), error
            final.save(out)
    except ResourceError as error:
        if not checkpoints(writer.run / "checkpoints"):
            raise problem or error from None
        advice = f"`gpt2 finetune --resume {writer.run} --out FILE` goes on from the last checkpoint"
        raise ResourceError(f"{problem or error}; {advice}") from None
    return out, problem
