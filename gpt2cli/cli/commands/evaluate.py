"""`gpt2 evaluate`: how well models predict and answer, side by side."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt2cli.cli import options
from gpt2cli.cli.commands.chat import default_checkpoint
from gpt2cli.cli.evaluation_job import Asked, prepare
from gpt2cli.cli.interrupts import raise_received
from gpt2cli.cli.report_file import check_out, write_report
from gpt2cli.cli.terminal import Console
from gpt2cli.config import ANSWERS, FINETUNED, PUBLISHED, EvaluationConfig, SamplingConfig
from gpt2cli.prompts import read_template

if TYPE_CHECKING:
    from gpt2cli.evaluation.engine import Job

EXAMPLES = """
[bold]Examples[/bold]

gpt2 evaluate

gpt2 evaluate --model gpt2 --ckpt finetuned.pt --out report.html

gpt2 evaluate --data records.json --ckpt a.pt --ckpt b.pt --answers 200 --json

gpt2 evaluate --data book.txt --model gpt2 --model distilgpt2 --stride 256

gpt2 evaluate --data records.json --answers-from theirs.json --answers-from ours.jsonl
"""
DATA, ANSWERING = "Data", "Answers"
DEFAULTS = EvaluationConfig()


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
            help="Alpaca .json or .jsonl, .txt, a folder of .txt, a directory of prepare-alpaca, or lessons (bundled).",
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
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Count malformed records and go on.", rich_help_panel=DATA)
    ] = False,
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
            help="How many instructions to answer, chosen at random; 0 for none.",
            show_default=f"{DEFAULTS.answers}, all without a model",
            rich_help_panel=ANSWERING,
        ),
    ] = None,
    answers_from: Annotated[
        list[str] | None,
        typer.Option(
            "--answers-from",
            metavar="FILE",
            help="Compare answers that were made elsewhere, too: a .json list or a .jsonl with an answer for each "
            "record, in the same order; may be given more than once. Needs no model.",
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
    bertscore_model: Annotated[
        str,
        typer.Option(
            "--bertscore-model",
            metavar="NAME|DIR",
            help="The model that BERTScore compares with: one that bert-score knows, or a directory.",
            rich_help_panel=ANSWERING,
        ),
    ] = DEFAULTS.bertscore_model,
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
    template: options.Template = None,
    device: options.Device = "auto",
    precision: options.PrecisionOption = options.Precision.auto,
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Measure how well models predict and answer, and whether tuning has helped."""
    console = Console(quiet)
    with options.named_as_typed("gpt2 evaluate"):
        sampling = SamplingConfig(max_new_tokens, temp, seed=seed)
        config = EvaluationConfig(
            stride, DEFAULTS.answers if answers is None else answers, sampling, bertscore, bertscore_model, seed=seed
        )
    if not model and not ckpt and not answers_from:
        ckpt = [default_checkpoint("evaluate")]
    if out is not None:
        check_out(out, [data, *(model or ()), *(ckpt or ()), *(answers_from or ())])
    if bertscore:
        check_bertscore(bertscore_model, offline)
    if threads:
        import torch

        torch.set_num_threads(threads)
    wording = None if template is None else read_template(template)
    names = (model or [], ckpt or [], answers_from or [])
    asked = Asked(data, split.value if split else None, skip_bad, *names, wording)
    job = prepare(console, asked, config, answers, (device, precision.value, offline))
    run(console, job, json, out)


def check_bertscore(model: str, offline: bool) -> None:
    """Raise UsageError if BERTScore cannot be computed. The network is forbidden before its package is imported."""
    from gpt2cli.evaluation import bertscore

    if offline:
        bertscore.forbid_network()
    bertscore.check_bertscore(model)


def run(console: Console, job: "Job", json: bool, out: Path | None) -> None:
    """Evaluate, showing how far it is, and then what was found."""
    from gpt2cli.cli.views.evaluation import EvaluationProgress, show_evaluation
    from gpt2cli.evaluation.engine import evaluate as evaluated
    from gpt2cli.evaluation.events import Completed

    with EvaluationProgress(console) as progress:
        try:
            for event in evaluated(job):
                raise_received()  # compilers catch what a signal raises
                progress.handle(event)
                if not isinstance(event, Completed):
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
