"""`gpt2 evaluate`: how well models predict and answer, side by side."""

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt2cli import paths
from gpt2cli.cli import options
from gpt2cli.cli.chat import default_checkpoint
from gpt2cli.cli.console import Console
from gpt2cli.config import ANSWERS, FINETUNED, PUBLISHED, EvaluationConfig, SamplingConfig
from gpt2cli.errors import UsageError

if TYPE_CHECKING:
    from gpt2cli.evaluation.candidates import Candidate
    from gpt2cli.evaluation.data import Instructions, Texts
    from gpt2cli.evaluation.engine import Job
    from gpt2cli.evaluation.results import Evaluation

EXAMPLES = """
[bold]Examples[/bold]

gpt2 evaluate

gpt2 evaluate --model gpt2 --ckpt finetuned.pt --out report.html

gpt2 evaluate --data records.json --ckpt a.pt --ckpt b.pt --answers 200 --json

gpt2 evaluate --data book.txt --model gpt2 --model distilgpt2 --stride 256
"""
DATA, ANSWERING = "Data", "Answers"
DEFAULTS = EvaluationConfig()
REPORTS = (".html", ".json")


class Part(str, Enum):
    """Which of the records."""

    test = "test"
    val = "val"
    train = "train"
    all = "all"


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(evaluate)


def evaluate(
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Alpaca .json or .jsonl, what prepare-alpaca made, a .txt, a folder of .txt, or the bundled lessons.",
            show_default="Alpaca",
            rich_help_panel=DATA,
        ),
    ] = None,
    split: Annotated[
        Part | None,
        typer.Option(
            "--split",
            help="Which records; val of a file are those that finetune held out.",
            show_default="test of what was prepared, all of a file",
            rich_help_panel=DATA,
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            "--stride",
            help="Tokens by which the window moves over plain text.",
            show_default="half of the window",
            rich_help_panel=DATA,
        ),
    ] = None,
    answers: Annotated[
        int | None,
        typer.Option(
            "--answers",
            help="How many instructions to answer, drawn by chance; 0 for none.",
            show_default=str(DEFAULTS.answers),
            rich_help_panel=ANSWERING,
        ),
    ] = None,
    max_new_tokens: Annotated[
        int,
        typer.Option("--max-new-tokens", "-n", help="Tokens of an answer at the most.", rich_help_panel=ANSWERING),
    ] = ANSWERS.max_new_tokens,
    temp: Annotated[
        float, typer.Option("--temp", help="0 for the likeliest answer.", rich_help_panel=ANSWERING)
    ] = ANSWERS.temperature,
    seed: Annotated[
        int, typer.Option("--seed", help="The same seed draws the same records.", rich_help_panel=ANSWERING)
    ] = DEFAULTS.seed,
    bertscore: Annotated[
        bool,
        typer.Option(
            "--bertscore", help="Compare by BERTScore too (needs gpt2cli\\[bertscore]).", rich_help_panel=ANSWERING
        ),
    ] = DEFAULTS.bertscore,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write a report with all answers: a page (.html) or data (.json).",
            rich_help_panel=options.OUTPUT_PANEL,
        ),
    ] = None,
    json: options.Json = False,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|OWNER/REPO|DIR",
            help=f"{', '.join(PUBLISHED)}, tiny, a Hub repository, or a local directory; may be given more than once. "
            "The others are compared with the first.",
            rich_help_panel=options.MODEL_PANEL,
            autocompletion=options.complete_model,
        ),
    ] = None,
    ckpt: Annotated[
        list[str] | None,
        typer.Option(
            "--ckpt",
            metavar="FILE|DIR",
            help="A checkpoint or a directory with a LoRA adapter; may be given more than once.",
            show_default=f"{FINETUNED}, if there is no --model",
            rich_help_panel=options.MODEL_PANEL,
        ),
    ] = None,
    device: options.Device = "auto",
    precision: options.PrecisionOption = options.Precision.auto,
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Tell how well models predict and answer, and whether tuning has helped."""
    console = Console(quiet)
    with options.named_as_typed("gpt2 evaluate"):
        sampling = SamplingConfig(max_new_tokens, temp, seed=seed)
        config = EvaluationConfig(
            stride, DEFAULTS.answers if answers is None else answers, sampling, bertscore, seed=seed
        )
    if not model and not ckpt:
        ckpt = [default_checkpoint("evaluate")]
    if out is not None:
        out = paths.expand(out)
        check_out(out, [data, *(model or ()), *(ckpt or ())])
    if bertscore:
        from gpt2cli.evaluation.scores import check_bertscore

        check_bertscore()
        if offline:
            os.environ["HF_HUB_OFFLINE"] = "1"  # its package brings its model itself
    if threads:
        import torch

        torch.set_num_threads(threads)
    job = prepare(console, data, split, config, model or [], ckpt or [], (device, precision.value, offline))
    refuse_idle(job.data, config, answers)
    run(console, job, json, out)


def check_out(out: Path, inputs: list[str | None]) -> None:
    """Raise UsageError or ResourceError for a report that could not be written, or would overwrite what is read."""
    from gpt2cli.errors import ResourceError

    if out.suffix not in REPORTS:
        raise UsageError(f"{out} is no name for a report: let it end in {' or '.join(REPORTS)}")
    if out.is_dir():
        raise UsageError(f"{out} is a directory: name a file in it")
    if any(given and paths.expand(given).resolve() == out.resolve() for given in inputs):
        raise UsageError(f"{out} is what is to be evaluated: write the report elsewhere")
    if not out.parent.is_dir():
        raise ResourceError(f"cannot write {out}: there is no directory {out.parent}: make it, or write elsewhere")


def prepare(
    console: Console,
    data: str | None,
    split: Part | None,
    config: EvaluationConfig,
    models: list[str],
    ckpts: list[str],
    machine: tuple[str, str, bool],
) -> "Job":
    """Find the models and the data, downloading what is not there, and see that all of it can be read."""
    from gpt2cli.cli.downloads import showing_downloads
    from gpt2cli.data.load import data_path, prepared_alpaca
    from gpt2cli.evaluation.candidates import Machine, candidates, division
    from gpt2cli.evaluation.data import read_data
    from gpt2cli.evaluation.engine import Job, check_stride
    from gpt2cli.model.device import pick_device

    pick_device(machine[0])  # before anything else takes long
    offline = machine[2]
    chosen = candidates(models, ckpts, Machine(*machine))
    with showing_downloads(console) as progress:
        windows = [candidate.block_size(progress) for candidate in chosen]  # first: it refuses models
        path = prepared_alpaca(offline, progress) if data is None else data_path(data)
    if config.stride is not None:
        check_stride(config.stride, min(windows))
    read = read_data(path, data or "Alpaca", split.value if split else None, *division(chosen, path, min(windows)))
    note_learned(console, chosen, read, path)
    return Job(chosen, read, config, min(windows))


def note_learned(console: Console, chosen: "list[Candidate]", data: "Instructions | Texts", path: Path) -> None:
    """Say which models have seen what they are to predict."""
    for candidate in chosen:
        if candidate.has_learned(data, path):
            advice = "" if path.suffix == ".txt" or path.is_dir() else ": --split val takes what it has not seen"
            console.note(f"{candidate.name} has learned from this very data, which flatters it{advice}")


def refuse_idle(data: "Instructions | Texts", config: EvaluationConfig, answers: int | None) -> None:
    """Raise UsageError for options that would do nothing."""
    from gpt2cli.evaluation.data import Texts

    if isinstance(data, Texts) and (answers or config.bertscore):
        raise UsageError("plain text holds no instructions to answer: leave --answers and --bertscore out")
    if not isinstance(data, Texts) and config.stride is not None:
        raise UsageError("--stride is for plain text: leave it out for instructions")
    if config.bertscore and not config.answers:
        raise UsageError("--bertscore compares answers, and --answers 0 asks for none")


def run(console: Console, job: "Job", json: bool, out: Path | None) -> None:
    """Evaluate, showing how far it is, and then what was found."""
    from gpt2cli.cli.evaluation_view import EvaluationProgress, show_evaluation
    from gpt2cli.evaluation.engine import evaluate as evaluated
    from gpt2cli.evaluation.events import Finished

    with EvaluationProgress(console) as progress:
        try:
            for event in evaluated(job):
                progress.handle(event)
                if not isinstance(event, Finished):
                    continue
                progress.close()
                if out is not None:
                    write_report(event.evaluation, out)
                if json:
                    console.json(event.evaluation.as_dict())
                else:
                    show_evaluation(console, event.evaluation, out)
                if out is not None:
                    console.note(f"wrote {out}")
        except KeyboardInterrupt:
            progress.close()
            console.note("what is done is kept: the same command goes on from there")
            raise


def write_report(evaluation: "Evaluation", out: Path) -> None:
    """Write it in the form that the name's ending says."""
    import json

    from gpt2cli.atomic import write_text
    from gpt2cli.evaluation.report import page

    if out.suffix == ".json":
        told: dict[str, Any] = evaluation.as_dict(with_records=True)
        write_text(out, json.dumps(told, ensure_ascii=False, indent=1) + "\n")
    else:
        write_text(out, page(evaluation))
