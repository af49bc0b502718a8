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
    from gpt2cli.data.kinds import check_kind, data_path
    from gpt2cli.evaluation.inputs import check_answers_file, compared_models

    if data is not None:
        check_kind(data_path(data))
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
) -> "Job":
    """Find the models and the data, download those that are missing, and check that all can be read.

    machine   gives the device, the precision and `offline` for all models
    template  for all models; None if each model has its own
    answers   the value of --answers; None if it was not given
    """
    from gpt2cli.cli.views.downloads import showing_downloads
    from gpt2cli.data.kinds import data_path
    from gpt2cli.data.open_data import prepared_alpaca
    from gpt2cli.evaluation.compared_models import candidates, division
    from gpt2cli.evaluation.engine import Job, check_stride
    from gpt2cli.evaluation.evaluation_data import Instructions, read_data
    from gpt2cli.evaluation.given_answers import read_given
    from gpt2cli.model.device import pick_device

    pick_device(machine.device)  # an error about the device comes first
    chosen = candidates(models, ckpts, machine, template)
    with showing_downloads(console) as progress:
        # before the data, because it can refuse a model
        windows = [candidate.spec.shape(progress, for_text=True).block_size for candidate in chosen]
        path = prepared_alpaca(machine.offline, progress) if data is None else data_path(data)
    if config.stride is not None and windows:
        check_stride(config.stride, min(windows))
    window = min(windows, default=GPTConfig.block_size)
    divided = division(chosen, path, window)
    read = read_data(path, data or "Alpaca", split, *divided, skip_bad=skip_bad, columns=columns)
    for note in read.notes:
        console.note(note)
    note_learned(console, chosen, read, path)
    refuse_idle(read, config, answers, answers_from, template)
    given = []
    if isinstance(read, Instructions):
        given = [read_given(name, paths.expand(name), read) for name in answers_from]
        if not chosen and answers is None:
            config = replace(config, answers=len(read.tasks))
    return Job(candidates=chosen, data=read, config=config, max_length=window if chosen else None, given=given)


def note_learned(console: Console, chosen: "list[Candidate]", data: "Instructions | Texts", path: Path) -> None:
    """Print a note about each model that was trained on this data."""
    for candidate in chosen:
        if candidate.was_trained_on(data, path):
            has_splits = path.suffix.lower() != ".txt" and not path.is_dir()
            advice = ": --split val takes the records that it has not seen" if has_splits else ""
            console.note(f"{candidate.spec.name} was trained on this data, so its scores are too good{advice}")


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
            "plain text holds no instructions to answer: leave --answers, --answers-from and --bertscore out"
        )
    if isinstance(data, Texts) and template is not None:
        raise UsageError("--template is for instructions, and plain text has none: leave it out")
    if not isinstance(data, Texts) and config.stride is not None:
        raise UsageError("--stride is for plain text: leave it out for instructions")
    for option, is_given in (("--bertscore", config.bertscore), ("--answers-from", answers_from)):
        if is_given and not config.answers:
            raise UsageError(f"{option} compares answers, and --answers 0 asks for none")
