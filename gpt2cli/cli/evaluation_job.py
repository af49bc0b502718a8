"""Makes a job for the evaluation engine from the options of `gpt2 evaluate`, and checks all inputs before it runs."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2cli import paths
from gpt2cli.cli.terminal import Console
from gpt2cli.config import EvaluationConfig, GPTConfig
from gpt2cli.errors import UsageError
from gpt2cli.prompts import PromptTemplate

if TYPE_CHECKING:
    from gpt2cli.checkpoints.model_spec import ModelSpec
    from gpt2cli.evaluation.compared_models import Candidate
    from gpt2cli.evaluation.engine import Job
    from gpt2cli.evaluation.evaluation_data import Instructions, Split, Texts


def check_inputs(
    machine: "ModelSpec", *, models: list[str], ckpts: list[str], data: str | None, answers_from: list[str]
) -> None:
    """Raise the errors of `prepare` that need neither torch nor a network: wrong names and wrong files."""
    from gpt2cli.data.source import check_data
    from gpt2cli.evaluation.inputs import check_answers_file, compared_models

    if data is not None:
        check_data(data)
    for spec in [machine, *compared_models(models, ckpts, machine)]:
        spec.check()
    for name in answers_from:
        check_answers_file(name, paths.expand(name))


def prepare(
    console: Console,
    config: EvaluationConfig,
    machine: "ModelSpec",
    *,
    models: list[str],
    ckpts: list[str],
    template: PromptTemplate | None,
    data: str | None,
    split: "Split | None",
    skip_bad: bool,
    columns: dict[str, str] | None,
    answers: int | None,
    answers_from: list[str],
    questions: bool,
) -> "Job":
    """Find the models and the data, download those that are missing, and check that all can be read.

    machine    gives the device, the precision and `offline` for all models
    template   for all models; None if each model has its own
    answers    the value of --answers; None if it was not given
    questions  the value of --questions
    """
    from gpt2cli.cli.views.downloads import showing_downloads
    from gpt2cli.data.open_data import prepared_alpaca
    from gpt2cli.data.source import fetch_data, is_remote
    from gpt2cli.evaluation.compared_models import candidates, division
    from gpt2cli.evaluation.engine import Job, check_stride
    from gpt2cli.evaluation.evaluation_data import read_data
    from gpt2cli.model.device_choice import pick_device

    pick_device(machine.device)  # an error about the device comes first
    chosen = candidates(models, ckpts, machine, template)
    with showing_downloads(console) as progress:
        # before the data, because it can refuse a model
        windows = [candidate.spec.shape(progress, for_text=True).block_size for candidate in chosen]
        if data is None:
            path = prepared_alpaca(machine.offline, progress)
        else:
            path = fetch_data(data, machine.offline, progress, columns)
    known_as = Path(data) if data and is_remote(data) else path  # as checkpoints name it
    if config.stride is not None and windows:
        check_stride(config.stride, min(windows))
    window = min(windows, default=GPTConfig.block_size)
    divided = division(chosen, known_as, window)
    read = read_data(path, data or "Alpaca", split, *divided, skip_bad=skip_bad, columns=columns, questions=questions)
    show_notes(console, chosen, read, known_as)
    refuse_idle(read, config, answers, answers_from, template)
    job = Job(candidates=chosen, data=read, config=config, max_length=window if chosen else None)
    return with_answers(console, job, answers, answers_from)


def with_answers(console: Console, job: "Job", answers: int | None, answers_from: list[str]) -> "Job":
    """The job with the answers in files, and with all of them to compare if there is no model.

    A note tells if the default of --answers leaves questions without an answer.
    """
    from gpt2cli.evaluation.evaluation_data import Instructions
    from gpt2cli.evaluation.given_answers import read_given

    if not isinstance(job.data, Instructions):
        return job
    data, config, count = job.data, job.config, len(job.data.tasks)
    if answers is None and not job.candidates:
        config = replace(config, answers=count)
    elif answers is None and not data.has_references and count > config.answers:
        console.note(
            f"{config.answers} of {count:,} {data.noun}s are answered, chosen at random: --answers {count} is all"
        )
    given = [read_given(name, paths.expand(name), data) for name in answers_from]
    return replace(job, config=config, given=given)


def show_notes(console: Console, chosen: "list[Candidate]", data: "Instructions | Texts", path: Path) -> None:
    """Print the notes on the data, and one about each model that was trained on it. Checkpoints name it `path`."""
    from gpt2cli.evaluation.evaluation_data import Instructions

    for note in data.notes:
        console.note(note)
    for candidate in chosen:
        if candidate.was_trained_on(data, path):
            has_splits = isinstance(data, Instructions) and path.suffix.lower() != ".txt" and not path.is_dir()
            has_unseen = has_splits and candidate.held_some_out
            advice = ": --split val takes the records that it has not seen" if has_unseen else ""
            scores = "its scores are too good"
            if isinstance(data, Instructions) and not data.has_references:
                scores = "it may know the answers by heart"
            console.note(f"{candidate.spec.name} was trained on this data, so {scores}{advice}")


def refuse_idle(
    data: "Instructions | Texts",
    config: EvaluationConfig,
    answers: int | None,
    answers_from: list[str],
    template: PromptTemplate | None,
) -> None:
    """Raise UsageError for options that would have no effect."""
    from gpt2cli.evaluation.evaluation_data import Texts

    if isinstance(data, Texts) and (answers or config.bertscore or answers_from):
        raise UsageError(
            "plain text holds no instructions to answer: leave --answers, --answers-from and --bertscore out, or use "
            "--questions to answer each line"
        )
    if isinstance(data, Texts) and template is not None:
        raise UsageError("--template is for instructions, and plain text has none: leave it out")
    if not isinstance(data, Texts) and config.stride is not None:
        raise UsageError("--stride is for plain text: leave it out for instructions")
    if not isinstance(data, Texts) and not data.has_references:
        if config.bertscore:
            raise UsageError("--bertscore compares answers with references, and questions have none: leave it out")
        if not config.answers:
            raise UsageError("--answers 0 asks for no answers, and questions have no other results: leave it out")
    for option, is_given in (("--bertscore", config.bertscore), ("--answers-from", answers_from)):
        if is_given and not config.answers:
            raise UsageError(f"{option} compares answers, and --answers 0 asks for none")
