"""Running a training job for a person: the engine, and all that handle its events."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from gpt2cli import outputs, paths
from gpt2cli.checkpoints.save import check_target
from gpt2cli.cli.finetune_settings import refuse_decided
from gpt2cli.cli.interrupts import held_back
from gpt2cli.cli.terminal import Console
from gpt2cli.cli.views.dataset import fate
from gpt2cli.cli.views.downloads import showing_downloads
from gpt2cli.cli.views.training import JsonEvents, LiveView
from gpt2cli.config import PUBLISHED, TINY
from gpt2cli.data.open_data import load_data
from gpt2cli.data.splits import Splits
from gpt2cli.errors import CheckpointError, ResourceError, UsageError
from gpt2cli.model.device import fast_training_dtype, pick_device
from gpt2cli.model.gpt import GPT
from gpt2cli.progress import Progress
from gpt2cli.training.distributed import joined_ranks, launched_rank, own_device
from gpt2cli.training.engine import train
from gpt2cli.training.events import Event, Finished
from gpt2cli.training.job import Job
from gpt2cli.training.results import Results, keep_base, kept_files
from gpt2cli.training.resuming import check_settings, find_checkpoint, run_of, settings_of
from gpt2cli.training.run_directory import RunDirectory
from gpt2cli.training.runs import any_run, new_run_path, newest_run, runs, wrote
from gpt2cli.training.settings import Settings
from gpt2cli.training.setup import check_vocabulary, find_data, load_model, make_job
from gpt2cli.training.state import checkpoints
from gpt2cli.training.tracking import WandbTracker


@dataclass(frozen=True)
class RunOptions:
    """The options that are not about the run itself, but about where and how it is computed and shown."""

    run: Path | None  # a run's directory, or one of its checkpoints
    resume: bool
    given: frozenset[str]  # names of the options that were typed
    device: str
    threads: int | None
    offline: bool
    compile: bool
    json: bool
    quiet: bool


def run_training(asked: Settings, show: RunOptions) -> None:
    """Train as `asked`, or go on with a run; show it, and write its results."""
    console = Console(show.quiet or launched_rank() > 0)
    if show.threads:
        torch.set_num_threads(show.threads)
    show = replace(show, device=own_device(show.device))
    with ExitStack() as stack:
        stack.enter_context(advising_on_memory(show.device))
        ranks = stack.enter_context(joined_ranks(pick_device(show.device)))
        path = find_run(asked, show)
        if path is None:
            console.note(f"nothing to do: every run in {runs()} is done")
            return
        settings = settings_of(path, asked, show.given) if show.resume else asked  # before anything is made there
        directory = stack.enter_context(RunDirectory(path, console.note)) if ranks.is_first else None
        if directory and not show.resume and (path / "config.json").exists():
            raise UsageError(f"{path} holds a run already: add --resume to go on with it, or choose another --run-dir")
        check(settings, path, show, console)
        is_done = show.resume and wrote(path, Path(settings.out))
        if is_done and not checkpoints(path / "checkpoints"):
            console.note(f"nothing to do: {path} is done, and wrote {settings.out}")
            return
        resume = find_checkpoint(show.run or path, console.note) if show.resume else None
        if resume:
            check_settings(settings, resume)
        with of_the_run(path if show.resume else None):
            model, splits = load_both(settings, show, stack.enter_context(showing_downloads(console)))
        note_left_out(splits, console)
        if directory:  # only now: a run that cannot begin cannot be resumed
            settings = keep_base(settings, path, show.offline)
            directory.write_config(settings.as_dict())
        interrupts = stack.enter_context(
            held_back(lambda: console.note("ending after this step; once more to leave at once"))
        )
        job = make_job(
            settings, model, splits, ranks, path / "checkpoints", resume, lambda: bool(interrupts), show.compile
        )
        results, events = Results(model, settings, splits, path), JsonEvents(console)
        finished = run(job, open_listeners(stack, console, directory, results, events if show.json else None))
        if interrupts:
            note_interrupted(path, console)
            interrupts.raise_received()
        if directory and not is_done:
            fields = write_results(results, finished, console)
            if show.json:
                events.write(fields)
        if directory:
            directory.write_out(Path(settings.out))
            if is_done:
                note_done(settings.out, directory.took_steps, console)
    events.raise_failed()


@contextmanager
def of_the_run(resumed: Path | None) -> Iterator[None]:
    """Make a UsageError about the settings of a resumed run a CheckpointError: nobody typed them now."""
    try:
        yield
    except UsageError as error:
        if resumed is None:
            raise
        raise CheckpointError(f"cannot resume {resumed}: {error}") from None


@contextmanager
def advising_on_memory(device: str) -> Iterator[None]:
    """Raise ResourceError, with advice, if the memory of a device does not suffice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # of a GPU, torch.OutOfMemoryError is one
        said = str(error).lower()
        if not isinstance(error, MemoryError) and "out of memory" not in said and "allocate memory" not in said:
            raise
        advice = "try a smaller --batch-size with more --grad-accum, --grad-checkpointing, or --lora"
        raise ResourceError(f"{pick_device(device)} is out of memory: {advice}") from None


def write_results(results: Results, finished: Finished, console: Console) -> dict[str, str | None]:
    """Write the final weights, and say where they and any better ones are. Raises ResourceError."""
    out, run, best = Path(results.settings.out), results.run, None
    try:
        results.write(out, finished)
    except ResourceError as error:
        if checkpoints(run / "checkpoints"):
            raise ResourceError(f"{error}; `gpt2 finetune --resume {run} --out FILE` writes them elsewhere") from None
        raise
    console.note(f"wrote {out}; the run is in {run}")
    if finished.got_worse and finished.best_val_step and results.best.exists():
        best = results.best
        console.note(f"the weights of the lowest validation loss are in {best}: give that to --ckpt")
    return {"kind": "wrote", "out": str(out), "run": str(run), "best": None if best is None else str(best)}


def check(settings: Settings, run: Path, show: RunOptions, console: Console) -> None:
    """Find out before the work what is wrong with the settings, or may be."""
    check_out(settings, run)
    if not show.resume:
        refuse_decided(settings.data, show.given)
    warn(settings, show, console)


def check_out(settings: Settings, run: Path) -> None:
    """Raise UsageError or ResourceError if the final weights cannot go where they are to."""
    out = Path(settings.out)
    check_target(out)
    outputs.check_file(out)
    if out.resolve() in [file.resolve() for file in kept_files(run)]:
        raise UsageError(f"the run keeps other weights in {out}: choose another --out")
    base = settings.ckpt or (None if settings.model in (*PUBLISHED, TINY) else settings.model)
    if settings.lora and base and paths.expand(base).resolve() in (out.resolve(), out.resolve().parent):
        raise UsageError(f"{out} belongs to the model that the adapter is for: choose another --out")


def warn(settings: Settings, show: RunOptions, console: Console) -> None:
    """Say before the work what somebody may not expect."""
    if Path(settings.out).exists() and not show.resume:
        console.note(f"{settings.out} is there, and will be replaced")
    if settings.precision == "bf16" and fast_training_dtype(pick_device(show.device)) is None:
        console.note("this device computes bf16 many times more slowly than fp32")


def load_both(settings: Settings, show: RunOptions, progress: Progress) -> tuple[GPT, Splits]:
    """The model that the run begins from, and its data."""
    given = None if settings.data is None else find_data(settings)  # a wrong name is said before a model is fetched
    model = load_model(settings, show.device, show.offline, progress)
    data = given or find_data(settings, show.offline, progress)
    window, template = model.config.block_size, settings.prompt_template
    splits = load_data(data, settings.train, settings.records, window, settings.skip_bad, template=template)
    if settings.template is not None and splits.template is None:
        raise UsageError("--template is for instructions, and plain text has none: leave it out")
    check_vocabulary(model, splits)
    if settings.train.patience and (settings.train.eval_every == 0 or not len(splits.val)):
        raise UsageError("--patience needs evaluations: leave out --eval-every 0 and --val-fraction 0, or --patience")
    return model, splits


def note_interrupted(run: Path, console: Console) -> None:
    saved = checkpoints(run / "checkpoints")
    console.note(f"go on with: gpt2 finetune --resume {run}" if saved else "nothing was saved: --save-every was 0")


def note_done(out: str, took_steps: bool, console: Console) -> None:
    """Say that a run that was done before does not write its weights again."""
    before = "the run was done before" if took_steps else "nothing to do: the run is done"
    console.note(f"{before}, and its weights are in {out}; --out FILE writes them elsewhere")


def note_left_out(splits: Splits, console: Console) -> None:
    """Say which records, or parts of records, are not trained on, and which other data is not used."""
    for note in splits.notes:
        console.note(note)
    counts = splits.info.get("counts")
    if counts and (counts["kept"] < counts["records"] or counts["truncated"]):
        console.note(fate(splits))


def run(job: Job, listeners: list[Callable[[Event], None]]) -> Finished:
    """Let the engine run to its end, telling every listener of every event."""
    for event in train(job):
        for listen in listeners:
            listen(event)
    assert isinstance(event, Finished)
    return event


def open_listeners(
    stack: ExitStack, console: Console, directory: RunDirectory | None, results: Results, events: JsonEvents | None
) -> list[Callable[[Event], None]]:
    """The functions that handle the run's events. In processes other than the first there are none."""
    if directory is None:
        return []
    view = stack.enter_context(LiveView(console))
    listeners: list[Callable[[Event], None]] = [directory.handle, view.handle, results.handle]
    if events:
        listeners.append(events.handle)
    settings = results.settings
    if settings.wandb_project:
        tracker = WandbTracker(settings.wandb_project, settings.as_dict(), directory.path, note=view.note)
        listeners.append(stack.enter_context(tracker).handle)
    return listeners


def find_run(asked: Settings, show: RunOptions) -> Path | None:
    """The run's directory; None if all are done. Raises UsageError if there is none to resume."""
    if not show.resume:
        label = Path(asked.data).stem if asked.data else "alpaca"
        return show.run or new_run_path(label)
    if show.run is not None:
        return run_of(show.run)
    newest = newest_run()
    if newest is None and not any_run():
        raise UsageError("there is no run to resume: name one, as in `gpt2 finetune --resume RUN`")
    return newest
