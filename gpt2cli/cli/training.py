"""Running a training job in front of somebody: the engine, and all who listen to it."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from gpt2cli.checkpoints.save import check_target
from gpt2cli.checkpoints.transfer import Progress
from gpt2cli.cli.console import Console
from gpt2cli.cli.dataset_summary import fate
from gpt2cli.cli.downloads import showing_downloads
from gpt2cli.cli.interrupts import held_back
from gpt2cli.cli.live import JsonEvents, LiveView
from gpt2cli.data.load import load_data
from gpt2cli.data.prepared import is_prepared
from gpt2cli.data.splits import Splits
from gpt2cli.errors import CheckpointError, ResourceError, UsageError
from gpt2cli.model.device import fast_training_dtype, pick_device
from gpt2cli.model.gpt import GPT
from gpt2cli.training.distributed import joined_ranks, launched_rank, own_device
from gpt2cli.training.engine import Job, train
from gpt2cli.training.events import Event, Finished
from gpt2cli.training.results import BEST, Results
from gpt2cli.training.run_directory import RunDirectory, new_run_path, newest_run, read_config
from gpt2cli.training.settings import Settings
from gpt2cli.training.setup import find_data, load_model, make_job
from gpt2cli.training.state import Resumable, checkpoints, read_newest, read_state
from gpt2cli.training.tracking import WandbTracker

DECIDED = {"loss_on", "val_fraction", "template"}
"""Settings that prepared data brings along."""


@dataclass(frozen=True)
class Show:
    """What the command's options say about the run's surroundings rather than the run."""

    run: Path | None  # a run's directory, or one of its checkpoints
    resume: bool
    given: frozenset[str]  # names of the options that were typed
    device: str
    threads: int | None
    offline: bool
    compile: bool
    json: bool
    quiet: bool


def run_training(asked: Settings, show: Show) -> None:
    """Train as `asked`, or go on with a run; show it, and write down what it gives."""
    console = Console(show.quiet or launched_rank() > 0)
    if show.threads:
        torch.set_num_threads(show.threads)
    show = replace(show, device=own_device(show.device))
    with ExitStack() as stack:
        ranks = stack.enter_context(joined_ranks(pick_device(show.device)))
        path = find_run(asked, show)
        settings = settings_of(path, asked, show.given) if show.resume else asked  # before anything is made there
        directory = stack.enter_context(RunDirectory(path, console.note)) if ranks.is_first else None
        if directory and not show.resume and (path / "config.json").exists():
            raise UsageError(f"{path} holds a run already: add --resume to go on with it, or choose another --run-dir")
        check_out(settings, path)
        refuse_decided(settings, show)
        warn(settings, show, console)
        model, splits = load_both(settings, show, stack.enter_context(showing_downloads(console)))
        note_left_out(splits, console)
        if directory:  # not before: a run that could not begin is none to resume
            directory.write_config(settings.as_dict())
        resume = find_checkpoint(show.run or path, console) if show.resume else None
        interrupts = stack.enter_context(
            held_back(lambda: console.note("ending after this step; once more to leave at once"))
        )
        job = make_job(
            settings, model, splits, ranks, path / "checkpoints", resume, lambda: bool(interrupts), show.compile
        )
        results = Results(model, settings, splits, path)
        finished = run(job, open_listeners(stack, console, directory, results, show))
        if interrupts:
            saved = checkpoints(path / "checkpoints")
            console.note(
                f"go on with: gpt2 finetune --resume {path}" if saved else "nothing was saved: --save-every was 0"
            )
        interrupts.raise_received()
        if directory:
            write_results(results, finished, console, show.json)


def write_results(results: Results, finished: Finished, console: Console, json: bool) -> None:
    """Write the final weights, and tell where they are, and where better ones are. Raises ResourceError."""
    out, run, best = Path(results.settings.out), results.run, None
    try:
        results.write(out, finished)
    except ResourceError as error:
        if checkpoints(run / "checkpoints"):
            raise ResourceError(f"{error}; `gpt2 finetune --resume {run} --out FILE` does") from None
        raise
    console.note(f"wrote {out}; the run is in {run}")
    if finished.got_worse and finished.best_val_step and results.best.exists():
        best = results.best
        console.note(f"the weights of the lowest validation loss are in {best}: give that to --ckpt")
    if json:
        console.json({"kind": "wrote", "out": str(out), "run": str(run), "best": None if best is None else str(best)})


def check_out(settings: Settings, run: Path) -> None:
    """Raise UsageError or ResourceError if the final weights cannot go where they are to."""
    out = Path(settings.out)
    check_target(out)
    if out == (run / BEST).absolute():
        raise UsageError(f"{out} is where the run keeps its best weights: choose another --out")
    if settings.lora and settings.ckpt and out.resolve() == Path(settings.ckpt).resolve():
        raise UsageError(f"{out} is what the adapter is for, and must stay as it is: choose another --out")


def warn(settings: Settings, show: Show, console: Console) -> None:
    """Say beforehand what somebody may not expect."""
    if Path(settings.out).exists() and not show.resume:
        console.note(f"{settings.out} is there, and will be replaced")
    if settings.precision == "bf16" and fast_training_dtype(pick_device(show.device)) is None:
        console.note("this device computes bf16 many times more slowly than fp32")


def load_both(settings: Settings, show: Show, progress: Progress) -> tuple[GPT, Splits]:
    """The model that the run begins from, and its data."""
    model = load_model(settings, show.device, show.offline, progress)
    data = find_data(settings, show.offline, progress)
    window, template = model.config.block_size, settings.prompt_template
    splits = load_data(data, settings.train, settings.records, window, settings.skip_bad, template=template)
    if settings.template is not None and splits.template is None:
        raise UsageError("--template is for instructions, and plain text has none: leave it out")
    if settings.train.patience and (settings.train.eval_every == 0 or not len(splits.val)):
        raise UsageError("--patience waits for evaluations, and there are none: let --eval-every and --val-fraction be")
    return model, splits


def note_left_out(splits: Splits, console: Console) -> None:
    """Say what became of records that are not trained on, or not on the whole of, and what else is not used."""
    for note in splits.notes:
        console.note(note)
    counts = splits.info.get("counts")
    if counts and (counts["kept"] < counts["records"] or counts["truncated"]):
        console.note(fate(splits))


def run(job: Job, listeners: list[Callable[[Event], None]]) -> Finished:
    """Let the engine run to its end, telling every listener of every event. Raises ResourceError if memory ends."""
    try:
        for event in train(job):
            for listen in listeners:
                listen(event)
    except torch.OutOfMemoryError:  # of a GPU
        advice = "try a smaller --batch-size with more --grad-accum, --grad-checkpointing, or --lora"
        raise ResourceError(f"{job.model.wte.weight.device} is out of memory: {advice}") from None
    assert isinstance(event, Finished)
    return event


def open_listeners(
    stack: ExitStack, console: Console, directory: RunDirectory | None, results: Results, show: Show
) -> list[Callable[[Event], None]]:
    """Who hears of the run: nobody in processes other than the first."""
    if directory is None:
        return []
    view = stack.enter_context(LiveView(console))
    listeners: list[Callable[[Event], None]] = [directory.handle, view.handle, results.handle]
    if show.json:
        listeners.append(JsonEvents(console).handle)
    settings = results.settings
    if settings.wandb_project:
        tracker = WandbTracker(settings.wandb_project, settings.as_dict(), directory.path, note=view.note)
        listeners.append(stack.enter_context(tracker).handle)
    return listeners


def find_run(asked: Settings, show: Show) -> Path:
    """The run's directory. Raises UsageError if there is none to resume."""
    if not show.resume:
        label = Path(asked.data).stem if asked.data else "alpaca"
        return show.run or new_run_path(label)
    if show.run is None:
        newest = newest_run()
        if newest is None:
            raise UsageError("there is no run to resume: name one, as in `gpt2 finetune --resume RUN`")
        return newest
    return show.run.parent.parent if show.run.name.startswith("step-") else show.run


def settings_of(path: Path, asked: Settings, given: frozenset[str]) -> Settings:
    """The settings that a run was begun with. Raises CheckpointError if options that were typed say otherwise."""
    then = Settings.from_dict(read_config(path))
    before, now = then.flat(), asked.flat()
    changed = [
        f"{name} was {before[name]!r}, is {now[name]!r}"
        for name in sorted(given & set(now))
        if before[name] != now[name]
    ]
    if changed:
        raise CheckpointError(f"cannot resume {path} with other settings: {'; '.join(changed)}: leave them out")
    kept = {name: getattr(asked, name) for name in ("out", "wandb_project") if name in given}
    return replace(then, **kept)


def refuse_decided(settings: Settings, show: Show) -> None:
    """Raise UsageError for options that were typed about what prepared data has brought along."""
    prepared = settings.data is None or is_prepared(Path(settings.data))
    if prepared and show.given & DECIDED and not show.resume:
        said = " and ".join(sorted(show.given & DECIDED))
        raise UsageError(
            f"{said} is decided when data is prepared: give it to `gpt2 prepare-alpaca`, or give other --data"
        )


def find_checkpoint(path: Path, console: Console) -> Resumable | None:
    """The checkpoint that was named, or the newest whole one of a run; None to begin anew, if there is none yet."""
    if path.name.startswith("step-"):
        return read_state(path)
    damaged = 0
    for found in read_newest(path / "checkpoints"):
        if isinstance(found, Resumable):
            return found
        console.note(f"{found}: trying the one before")
        damaged += 1
    if damaged:
        raise CheckpointError(f"no checkpoint in {path} is whole: start a new run")
    console.note(f"{path} has no checkpoint yet: starting from the beginning")
    return None
