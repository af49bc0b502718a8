"""Begins a training run: finds, checks and loads everything that it needs before the first step."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from gpt2cli import outputs, paths, untrusted
from gpt2cli.data.splits import Splits
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.model.device import fast_training_dtype
from gpt2cli.model.device_choice import pick_device
from gpt2cli.progress import Note, Progress
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.done_runs import complete_weights
from gpt2cli.training.ending import end_run
from gpt2cli.training.estimate import Plan, make_plan
from gpt2cli.training.events import Finished
from gpt2cli.training.inputs import load_inputs
from gpt2cli.training.job import Job, make_job
from gpt2cli.training.resuming import (
    check_identity,
    check_length,
    check_settings,
    find_checkpoint,
    run_of,
    settings_of,
    with_length_of,
)
from gpt2cli.training.run_checkpoints import Resumable
from gpt2cli.training.run_directory import RunDirectory
from gpt2cli.training.runs import check_any_run, find_run, new_run_path, newest_run, read_config
from gpt2cli.training.settings import Settings
from gpt2cli.training.settings_checks import check_new, check_places
from gpt2cli.training.weights_writer import WeightsWriter, keep_base


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Which run to work on, and where to compute it. These options are not settings of the run.

    path    the run's directory or name, or one of its checkpoints; None: a new directory, or the newest unfinished run
    resume  whether to go on with a run, instead of starting a new one
    given   names of the settings that were given explicitly: a resumed run must have the same values
    force   whether the final weights may replace a file that another run, or anything else, wrote
    dry_run whether to make the plan of the run only: nothing is written, and no weights are loaded
    """

    path: Path | None = None
    resume: bool = False
    force: bool = False
    given: frozenset[str] = frozenset()
    device: str = "auto"
    offline: bool = False
    compile: bool = False
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that is ready for its next step.

    directory  in processes other than the first None: only the first one writes files
    force      see RunOptions
    plan       what the steps that are left will take and need; after a dry run, only this is of use
    """

    path: Path
    settings: Settings
    splits: Splits
    job: Job
    directory: RunDirectory | None
    plan: Plan
    force: bool = False

    @property
    def weights(self) -> WeightsWriter:
        return WeightsWriter(self.job.model, self.settings, self.splits, self.path)

    def write_weights(self, finished: Finished) -> None:
        """Write the final weights, and mark the run as done: see `end_run`. Raises ResourceError."""
        if self.directory:
            rounded = self.job.base_is_rounded
            end_run(self.directory, self.weights, finished, base_is_rounded=rounded, force=self.force)


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
        note(f"nothing to do: no run in {paths.runs()} is unfinished")
        yield None
        return
    settings = settings_of(path, asked, options.given) if options.resume else asked
    with _opened(path, options, ranks, note) as directory:
        if options.resume and (weights := complete_weights(path, settings)):
            note(f"nothing to do: {path} is done, and its weights are in {weights}")
            yield None
            return
        if not options.resume:
            check_new(settings, path if ranks.is_first else None, options.given)
        check_places(settings, path, options.force)
        device = torch.device(pick_device(options.device))
        if settings.precision == "bf16" and fast_training_dtype(device) is None:
            note("this device computes bf16 many times more slowly than fp32")
        checkpoint = _find_checkpoint(settings, path, options, note) if options.resume else None
        with _naming_the_resumed_run(path if options.resume else None):
            model, splits = load_inputs(settings, options.device, options.offline, progress, only_shape=options.dry_run)
        job = make_job(
            settings,
            model,
            splits,
            ranks,
            device,
            checkpoints=path / "checkpoints",
            resume=checkpoint,
            compiled=options.compile,
        )
        _check_resumed(job)
        if checkpoint and checkpoint.went_back:
            note(f"going on from step {checkpoint.counters.step}, before the learning rate fell")
        settings = replace(settings, train=job.config)
        if directory:  # not earlier: a run that could not load its inputs must not be resumable
            settings = _write_config(directory, settings, options)
        plan = make_plan(settings, job, path, device)
        yield Run(
            path=path,
            settings=settings,
            splits=splits,
            job=job,
            directory=directory,
            plan=plan,
            force=options.force,
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


def _write_config(directory: RunDirectory, settings: Settings, options: RunOptions) -> Settings:
    """Write the settings into the run's directory. Returns them, with the base that the adapter is for."""
    if options.resume and settings.train != Settings.from_dict(read_config(directory.path)).train:
        directory.reopen()  # before the new length is written: a process killed in between leaves an unfinished run
    settings = keep_base(settings, directory.path, options.offline)
    directory.write_config(settings.as_dict())
    return settings


def _find_checkpoint(
    settings: Settings, path: Path, options: RunOptions, note: Callable[[str], None]
) -> Resumable | None:
    """The checkpoint to resume from, with the length in the settings; None if the run has none yet."""
    checkpoint = find_checkpoint(find_run(options.path) if options.path else path, settings.train, note)
    if checkpoint:
        checkpoint = with_length_of(settings, checkpoint, path)
        check_settings(settings, checkpoint)
    return checkpoint


def _check_resumed(job: Job) -> None:
    """Raise CheckpointError if the checkpoint belongs to another run, or does not fit the length.

    The engine checks the first as well, but a run that is extended is not changed before this is known.
    """
    if job.resume:
        check_identity(job.resume, job.identity)
        check_length(job.resume, job.total_steps, job.config)


def _find_run(asked: Settings, options: RunOptions) -> Path | None:
    """The run's directory; None if all runs are done. Raises UsageError if there is none to resume."""
    if not options.resume:
        label = Path(asked.data).stem if asked.data else "alpaca"
        return options.path or new_run_path(label)
    if options.path is not None:
        return run_of(find_run(options.path))
    check_any_run()
    return newest_run()


@contextmanager
def _naming_the_resumed_run(path: Path | None) -> Iterator[None]:
    """Turn a UsageError about a resumed run's settings into a CheckpointError: they come from its config.json."""
    try:
        yield
    except UsageError as error:
        if path is None:
            raise
        raise CheckpointError(f"cannot resume {path}: {error}") from None
