"""Runs a training job: shows its events, handles Ctrl-C, and tells which files were written."""

import logging
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from gpt2cli.cli.interrupts import held_back
from gpt2cli.cli.terminal import Console
from gpt2cli.cli.views.dataset import fate
from gpt2cli.cli.views.downloads import showing_downloads
from gpt2cli.cli.views.plan import PaceNote, show_plan
from gpt2cli.cli.views.spinner import working
from gpt2cli.cli.views.training import JsonEvents, LiveView
from gpt2cli.data.splits import Splits
from gpt2cli.errors import ResourceError
from gpt2cli.model.device_choice import pick_device
from gpt2cli.training.begin import Run, RunOptions, begin
from gpt2cli.training.checkpoint_directories import checkpoints
from gpt2cli.training.distributed import joined_ranks, launched_rank, own_device
from gpt2cli.training.ending import better_weights, is_best, is_much_worse
from gpt2cli.training.engine import train
from gpt2cli.training.events import Event, Finished
from gpt2cli.training.job import Job
from gpt2cli.training.plan_warnings import MEMORY_ADVICE
from gpt2cli.training.settings import Settings
from gpt2cli.training.tracking import WandbTracker

FEW_EXAMPLES = 50
"""With fewer training examples, a person should know that some are held out."""


def run_training(
    asked: Settings, options: RunOptions, *, threads: int | None, json: bool, quiet: bool, verbose: bool
) -> None:
    """Start a run with the settings `asked`, or resume one. Shows its events, and writes its weights at the end.

    With `verbose`, it also shows each checkpoint.
    """
    console = Console(quiet or launched_rank() > 0)
    events = JsonEvents(console)
    if threads:
        torch.set_num_threads(threads)
    if options.compile:  # the compiler writes raw lines to stderr, about sizes that it compiles no further variants for
        torch._logging.set_logs(dynamo=logging.ERROR, inductor=logging.ERROR)  # type: ignore[attr-defined]
    options = replace(options, device=own_device(options.device))
    with ExitStack() as stack:
        stack.enter_context(advising_on_memory(options.device))
        ranks = stack.enter_context(joined_ranks(torch.device(pick_device(options.device))))
        progress = stack.enter_context(showing_downloads(console))
        with working(console, "loading the model and the data"):
            run = stack.enter_context(begin(asked, options, ranks, progress))
        if run is None:
            return
        note_left_out(run.splits, console)
        note_held_out(run, console)
        if run.directory or (options.dry_run and launched_rank() == 0):
            show_plan(run.plan, run.settings, console, events if json else None, is_result=options.dry_run)
        if options.dry_run:
            return
        interrupts = stack.enter_context(
            held_back(lambda: console.note("stopping after this step; press Ctrl-C again to stop at once"))
        )
        run.job.should_stop = lambda: bool(interrupts)
        finished = follow(run.job, open_listeners(stack, console, run, events if json else None, verbose))
        if finished.reason == "interrupted":
            saved = checkpoints(run.path / "checkpoints")
            resume = f"to continue: gpt2 finetune --resume {run.path}{' --force' * run.force}"
            console.note(resume if saved else "nothing was saved, because --save-every was 0")
            interrupts.raise_received()
            return  # another process received the signal
        with working(console, f"writing {run.settings.out}"):
            run.write_weights(finished)  # also after a signal in the last step: no checkpoint holds them
        if run.directory:
            best = better_weights(run.weights, finished)
            note_written(run, finished, best, console)
            if json:
                where = {"out": run.settings.out, "run": str(run.path), "best": best and str(best)}
                events.write({"kind": "wrote"} | where)
        interrupts.raise_received()
    events.raise_failed()


def follow(job: Job, listeners: list[Callable[[Event], None]]) -> Finished:
    """Run the job to its end, and pass every event to every listener."""
    for event in train(job):
        for listen in listeners:
            listen(event)
    assert isinstance(event, Finished)
    return event


def open_listeners(
    stack: ExitStack, console: Console, run: Run, events: JsonEvents | None, verbose: bool
) -> list[Callable[[Event], None]]:
    """The functions that handle the run's events; none in processes other than the first."""
    if run.directory is None:
        return []
    view = stack.enter_context(LiveView(console, verbose))
    listeners: list[Callable[[Event], None]] = [run.directory.handle, view.handle, run.weights.handle]
    listeners.append(PaceNote(run.plan, view.note).handle)
    if events:
        listeners.append(events.handle)
    if run.settings.wandb_project:
        tracker = WandbTracker(run.settings.wandb_project, run.settings.as_dict(), run.path, note=view.note)
        listeners.append(stack.enter_context(tracker).handle)
    return listeners


@contextmanager
def advising_on_memory(device: str) -> Iterator[None]:
    """Raise ResourceError, with advice, if a device runs out of memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        said = str(error).lower()
        if not isinstance(error, MemoryError) and "out of memory" not in said and "allocate memory" not in said:
            raise
        raise ResourceError(f"{pick_device(device)} is out of memory: try {MEMORY_ADVICE}") from None


def note_left_out(splits: Splits, console: Console) -> None:
    """Note which records, or parts of them, and which other files are not used."""
    for note in splits.notes:
        console.note(note)
    counts = splits.info.get("counts")
    if counts and (counts["kept"] < counts["records"] or counts["truncated"]):
        console.note(fate(splits))


def note_held_out(run: Run, console: Console) -> None:
    """Note at the start of a run with few examples that it could train on all of them."""
    can_train_on_all = len(run.splits.val) and not run.settings.data_is_prepared and not run.plan.step
    if can_train_on_all and run.plan.examples < FEW_EXAMPLES:
        console.note("the model does not learn from what is held out; --val-fraction 0 trains on all")


def note_written(run: Run, finished: Finished, best: Path | None, console: Console) -> None:
    """Note where the final weights are, and where those with the lowest validation loss, in the file `best` if any."""
    lowest = ", with the lowest validation loss of the run" if is_best(finished) else ""
    console.note(f"wrote {run.settings.out}{lowest}; the run is in {run.path}")
    if best:
        console.note(f"the weights of the lowest validation loss are in {best}: use them with --ckpt")
    if is_much_worse(finished):
        console.note("warning: the model predicts the held-out examples worse than before: try a lower --lr", wrap=True)
    else:
        next_step = "to chat with it: gpt2 chat" if run.splits.template else "to continue a text with it: gpt2 generate"
        console.note(f"{next_step} --ckpt {shlex.quote(run.settings.out)}")
