"""`gpt2 evaluate`: compare how well models predict and answer."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
of_data, of_answers = (partial(typer.Option, rich_help_panel=panel) for panel in ("Data", "Answers"))
DEFAULTS = EvaluationConfig()


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(evaluate)


def evaluate(
    data: Annotated[
        str | None,
        of_data(
            "--data",
            metavar="PATH",
            help="Alpaca .json or .jsonl, .txt, a folder of .txt, a directory of prepare-alpaca, or lessons (bundled).",
            show_default="Alpaca",
        ),
    ] = None,
    split: Annotated[
        Literal["test", "val", "train", "all"] | None,
        of_data(
            "--split",
            help="The split to evaluate; val of a file is what finetune held out.",
            show_default="test of what was prepared, all of a file",
        ),
    ] = None,
    skip_bad: Annotated[bool, of_data("--skip-bad", help="Skip malformed records and report their number.")] = False,
    stride: Annotated[
        int | None,
        of_data(
            "--stride",
            help="The number of tokens by which the window moves over plain text.",
            show_default="half of the window",
        ),
    ] = None,
    answers: Annotated[
        int | None,
        of_answers(
            "--answers",
            help="The number of instructions to answer, chosen at random; 0 for none.",
            show_default=f"{DEFAULTS.answers}, all without a model",
        ),
    ] = None,
    answers_from: Annotated[
        list[str] | None,
        of_answers(
            "--answers-from",
            metavar="FILE",
            help="Also compare the answers of another program: a .json list or a .jsonl with one answer a record, in "
            "the same order. Can be given more than once. Needs no model.",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int,
        of_answers("--max-new-tokens", "-n", help="The largest number of tokens in an answer."),
    ] = ANSWERS.max_new_tokens,
    temp: Annotated[float, of_answers("--temp", help="The temperature; 0 is greedy.")] = ANSWERS.temperature,
    seed: Annotated[
        int, of_answers("--seed", help="The random seed. The same seed chooses the same records.")
    ] = DEFAULTS.seed,
    bertscore: Annotated[
        bool,
        of_answers("--bertscore", help="Also compute BERTScore (needs gpt2cli\\[bertscore])."),
    ] = DEFAULTS.bertscore,
    bertscore_model: Annotated[
        str,
        of_answers(
            "--bertscore-model",
            metavar="NAME|DIR",
            help="The model for BERTScore: a name that bert-score knows, or a directory.",
        ),
    ] = DEFAULTS.bertscore_model,
    out: Annotated[
        Path | None,
        options.of_output(
            "--out",
            metavar="FILE",
            help="Write a report with all answers, as a page (.html) or as data (.json).",
        ),
    ] = None,
    json: options.Json = False,
    model: Annotated[
        list[str] | None,
        options.of_model(
            "--model",
            "-m",
            metavar="NAME|OWNER/REPO|DIR",
            help=f"{', '.join(PUBLISHED)}, tiny, a Hub repository, or a local directory. Can be given more than "
            "once. The other models are compared with the first.",
            autocompletion=options.complete_model,
        ),
    ] = None,
    ckpt: Annotated[
        list[str] | None,
        options.of_model(
            "--ckpt",
            metavar="FILE|DIR",
            help="A checkpoint or a directory with a LoRA adapter. Can be given more than once.",
            show_default=f"{FINETUNED}, if there is no --model",
        ),
    ] = None,
    template: options.Template = None,
    device: options.Device = "auto",
    precision: options.PrecisionOption = "auto",
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Measure how well models predict and answer, and compare them."""
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
    asked = Asked(data, split, skip_bad, *names, wording)
    from gpt2cli.checkpoints.model_spec import ModelSpec

    machine = ModelSpec(device=device, precision=precision, offline=offline)
    job = prepare(console, asked, config, answers, machine)
    run(console, job, json, out)


def check_bertscore(model: str, offline: bool) -> None:
    """Raise UsageError if BERTScore cannot be computed. bert-score reads whether it may use the network on import."""
    from gpt2cli.evaluation import bertscore

    if offline:
        bertscore.forbid_network()
    bertscore.check_bertscore(model)


def run(console: Console, job: "Job", json: bool, out: Path | None) -> None:
    """Evaluate with progress on the terminal, and print or write the results."""
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
