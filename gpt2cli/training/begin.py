"""Begins a training run: finds, checks and loads everything that it needs before the first step."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from gpt2cli import outputs, paths, untrusted
from gpt2cli.checkpoints.save import check_target
from gpt2cli.config import PUBLISHED, TINY
from gpt2cli.data.prepared import is_prepared
from gpt2cli.data.splits import Splits
from gpt2cli.errors import CheckpointError, ResourceError, UsageError
from gpt2cli.model.device import fast_training_dtype, pick_device
from gpt2cli.progress import Note, Progress
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.estimate import Plan, make_plan, shape_job
from gpt2cli.training.events import Finished
from gpt2cli.training.inputs import load_inputs
from gpt2cli.training.job import Job, make_job
from gpt2cli.training.resuming import check_settings, find_checkpoint, run_of, settings_of
from gpt2cli.training.run_checkpoints import checkpoints
from gpt2cli.training.run_directory import RunDirectory
from gpt2cli.training.runs import any_run, new_run_path, newest_run, runs, wrote
from gpt2cli.training.settings import Settings
from gpt2cli.training.weights_writer import WeightsWriter, keep_base, kept_files


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Which run to work on, and where to compute it. These options are not settings of the run.

    path    the run's directory, or one of its checkpoints; None: a new directory, or the newest run that is not done
    resume  whether to go on with a run, instead of starting a new one
    given   names of the settings that were given explicitly: a resumed run must have the same values
    dry_run  whether to make the plan of the run only: nothing is written, and no weights are loaded
    """

    path: Path | None = None
    resume: bool = False
    given: frozenset[str] = frozenset()
    device: str = "auto"
    offline: bool = False
    compile: bool = False
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that is ready for its next step.

    directory  in processes other than the first None: only the first one writes files
    was_done   whether the run ended in an earlier process, which also wrote the final weights
    plan       what the steps that are left will take and need; after a dry run, only this is of use
    """

    path: Path
    settings: Settings
    splits: Splits
    job: Job
    directory: RunDirectory | None
    was_done: bool
    plan: Plan

    @property
    def weights(self) -> WeightsWriter:
        return WeightsWriter(self.job.model, self.settings, self.splits, self.path)

    def write_weights(self, finished: Finished) -> None:
        """Write the final weights, unless an earlier process did, and mark the run as done. Raises ResourceError."""
        if self.directory is None:
            return
        out = Path(self.settings.out)
        if not self.was_done:
            try:
                self.weights.write(out, finished, base_is_rounded=self.job.base_is_rounded)
            except ResourceError as error:
                if not checkpoints(self.path / "checkpoints"):
                    raise
                advice = f"`gpt2 finetune --resume {self.path} --out FILE` writes them elsewhere"
                raise ResourceError(f"{error}; {advice}") from None
        self.directory.write_out(out)

    def better_weights(self, finished: Finished) -> Path | None:
        """The weights with the lowest validation loss, if they are not the final ones."""
        best = self.weights.best
        return best if finished.got_worse and finished.best_val_step and best.exists() else None


@contextmanager
def begin(asked: Settings, options: RunOptions, ranks: Ranks, progress: Progress) -> Iterator[Run | None]:
    """Find, check and load what a run needs. Its directory is locked until the context ends.

    Yields None, after a note that says why, if nothing is left to do. `progress` receives notes and downloads.
    Raises UsageError, DataError, CheckpointError, ResourceError or NetworkError if the run cannot begin.
    """

    def note(text: str) -> None:
        progress(Note(text))

    path = _find_run(asked, options)
    if path is None:
        note(f"nothing to do: every run in {runs()} is done")
        yield None
        return
    settings = settings_of(path, asked, options.given) if options.resume else asked
    with _opened(path, options, ranks, note) as directory:
        _check(settings, path, options, ranks)
        _warn(settings, options, note)
        was_done = options.resume and wrote(path, Path(settings.out))
        if was_done and not checkpoints(path / "checkpoints"):
            note(f"nothing to do: {path} is done, and wrote {settings.out}")
            yield None
            return
        checkpoint = find_checkpoint(options.path or path, note) if options.resume else None
        if checkpoint:
            check_settings(settings, checkpoint)
        with _naming_the_resumed_run(path if options.resume else None):
            model, splits = load_inputs(settings, options.device, options.offline, progress, only_shape=options.dry_run)
        if directory:  # not earlier: a run that could not load its inputs must not be resumable
            settings = keep_base(settings, path, options.offline)
            directory.write_config(settings.as_dict())
        device = pick_device(options.device)
        if options.dry_run:
            job = shape_job(settings, model, splits, ranks, device)
        else:
            job = make_job(
                settings,
                model,
                splits,
                ranks,
                checkpoints=path / "checkpoints",
                resume=checkpoint,
                compiled=options.compile,
            )
        step = checkpoint.counters.step if checkpoint else 0
        plan = make_plan(settings, job, path, device, is_text=splits.template is None, step=step)
        yield Run(
            path=path, settings=settings, splits=splits, job=job, directory=directory, was_done=was_done, plan=plan
        )


def _opened(
    path: Path, options: RunOptions, ranks: Ranks, note: Callable[[str], None]
) -> AbstractContextManager[RunDirectory | None]:
    """The run's directory, made and locked; None in all processes but the first. A dry run only checks it."""
    if options.dry_run:
        if untrusted.is_file(path):
            raise UsageError(f"{path} is a file: let --run-dir name a directory")
        outputs.check_directory(path)
    return RunDirectory(path, note) if ranks.is_first and not options.dry_run else nullcontext()


def _find_run(asked: Settings, options: RunOptions) -> Path | None:
    """The run's directory; None if all runs are done. Raises UsageError if there is none to resume."""
    if not options.resume:
        label = Path(asked.data).stem if asked.data else "alpaca"
        return options.path or new_run_path(label)
    if options.path is not None:
        return run_of(options.path)
    newest = newest_run()
    if newest is None and not any_run():
        raise UsageError("there is no run to resume: name one, as in `gpt2 finetune --resume RUN`")
    return newest


def _check(settings: Settings, path: Path, options: RunOptions, ranks: Ranks) -> None:
    """Raise the errors that can be known before anything is loaded."""
    if not options.resume and ranks.is_first and (path / "config.json").exists():
        raise UsageError(f"{path} holds a run already: add --resume to continue it, or choose another --run-dir")
    check_out(settings, path)
    if not options.resume:
        _refuse_decided(settings.data, options.given)


def check_out(settings: Settings, run: Path) -> None:
    """Raise UsageError or ResourceError if the final weights cannot be written to `settings.out`."""
    out = Path(settings.out)
    check_target(out)
    if out.resolve() in [file.resolve() for file in kept_files(run)]:
        raise UsageError(f"the run keeps other weights in {out}: choose another --out")
    base = settings.ckpt or (None if settings.model in (*PUBLISHED, TINY) else settings.model)
    if settings.lora and base and paths.expand(base).resolve() in (out.resolve(), out.resolve().parent):
        raise UsageError(f"{out} belongs to the model that the adapter is for: choose another --out")


def _refuse_decided(data: str | None, given: frozenset[str]) -> None:
    """Raise UsageError for given settings that prepared data has already fixed. Prepared data is the default."""
    decided = sorted(given & {"loss_on", "val_fraction", "template"})
    if decided and (data is None or is_prepared(Path(data))):
        names = " and ".join(f"--{name.replace('_', '-')}" for name in decided)
        raise UsageError(
            f"{names} cannot change prepared data: give it to `gpt2 prepare-alpaca`, or choose other --data"
        )


def _warn(settings: Settings, options: RunOptions, note: Callable[[str], None]) -> None:
    """Tell the user about a file that will be replaced, and about a slow number format."""
    if Path(settings.out).exists() and not options.resume:
        note(f"{settings.out} exists and will be replaced")
    if settings.precision == "bf16" and fast_training_dtype(pick_device(options.device)) is None:
        note("this device computes bf16 many times more slowly than fp32")


@contextmanager
def _naming_the_resumed_run(path: Path | None) -> Iterator[None]:
    """Turn a UsageError about a resumed run's settings into a CheckpointError: they come from its config.json."""
    try:
        yield
    except UsageError as error:
        if path is None:
            raise
        raise CheckpointError(f"cannot resume {path}: {error}") from None
