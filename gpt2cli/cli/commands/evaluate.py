"""`gpt2 evaluate`: compare how well models predict and answer."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gpt2cli.cli import options
from gpt2cli.cli.commands.chat import default_checkpoint
from gpt2cli.cli.config_options import option
from gpt2cli.cli.evaluation_job import check_inputs, prepare
from gpt2cli.cli.interrupts import raise_received
from gpt2cli.cli.report_file import EVALUATION, check_out, write_report
from gpt2cli.cli.terminal import Console
from gpt2cli.cli.views.spinner import waiting_for, working
from gpt2cli.config import ANSWERS, FINETUNED, EvaluationConfig, SamplingConfig
from gpt2cli.data.columns import parse_columns
from gpt2cli.errors import UsageError
from gpt2cli.hub.names import DATASET_FORM
from gpt2cli.prompts import read_template
from gpt2cli.published import PUBLISHED

if TYPE_CHECKING:
    from gpt2cli.evaluation.engine import Job

EXAMPLES = """
gpt2 evaluate --model tiny --data lessons --split val  # a first try, without a network
gpt2 evaluate --model gpt2 --ckpt finetuned.pt --out report.html  # did fine-tuning help? with a page of all answers
gpt2 evaluate --data records.json --ckpt a.pt --ckpt b.pt --answers 200 --json  # compare two on your own records
gpt2 evaluate --data quiz.csv --columns instruction=task,output=solution --ckpt a.pt  # records in a table
gpt2 evaluate --data chats.jsonl --split val --ckpt chatty.pt  # conversations: scores all answers, writes the last one
gpt2 evaluate --data book.txt --model gpt2 --model distilgpt2 --stride 256  # perplexity on plain text
gpt2 evaluate --data questions.txt --questions --model gpt2 --ckpt finetuned.pt  # answers side by side, no scores
gpt2 evaluate --data records.json --answers-from theirs.json  # score answers from elsewhere
"""
of_data, of_answers = (partial(typer.Option, rich_help_panel=panel) for panel in ("Data", "Answers"))
DEFAULTS = EvaluationConfig()
RESULTS_ARE_KEPT = "the results are kept, and the same command with another --out writes them at once"


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(evaluate)


def evaluate(
    data: Annotated[
        str | None,
        of_data(
            "--data",
            metavar="PATH|hf:...",
            help="Instructions, conversations or text, as for `gpt2 finetune`: .csv, .tsv, .json, .jsonl, .txt, a "
            f"folder of .txt, a directory of prepare-alpaca, {DATASET_FORM} on the Hub, an https address, or lessons "
            "(bundled).",
            show_default="Alpaca",
        ),
    ] = None,
    split: Annotated[
        Literal["test", "val", "train", "all"] | None,
        of_data(
            "--split",
            help="The part of the data to use. For a file, val is the part that finetune held out.",
            show_default="test of prepared data, all of a file",
        ),
    ] = None,
    questions: Annotated[
        bool,
        of_data(
            "--questions",
            help="Only answer, without scores: each line of a .txt file, or of other data each record, and the last "
            "question of each conversation. Outputs are not used.",
        ),
    ] = False,
    skip_bad: Annotated[bool, of_data("--skip-bad", help="Skip malformed records and report their number.")] = False,
    columns: Annotated[str | None, options.columns("Data")] = None,
    stride: Annotated[int | None, option("Data", EvaluationConfig, "stride")] = DEFAULTS.stride,
    answers: Annotated[int | None, option("Answers", EvaluationConfig, "answers")] = None,
    answers_from: Annotated[
        list[str] | None,
        of_answers(
            "--answers-from",
            metavar="FILE",
            help="Also evaluate the answers in this file (.csv, .tsv, .json or .jsonl), one for each record or "
            "conversation in the same order. Needs no model. Can be repeated.",
        ),
    ] = None,
    max_new_tokens: options.MaxNewTokens = ANSWERS.max_new_tokens,
    temp: options.Temperature = ANSWERS.temperature,
    seed: Annotated[int, option("Answers", EvaluationConfig, "seed")] = DEFAULTS.seed,
    bertscore: Annotated[bool, option("Answers", EvaluationConfig, "bertscore")] = DEFAULTS.bertscore,
    bertscore_model: Annotated[str, option("Answers", EvaluationConfig, "bertscore_model")] = DEFAULTS.bertscore_model,
    out: Annotated[
        Path | None,
        options.of_output(
            "--out",
            metavar="FILE",
            help="Write a report with all answers: a web page (.html) or data (.json). Replaces an earlier report.",
        ),
    ] = None,
    force: Annotated[
        bool, options.of_output("--force", help="Replace a file at --out that is not an earlier report.")
    ] = False,
    json: options.Json = False,
    model: Annotated[
        list[str] | None,
        options.of_model(
            "--model",
            "-m",
            metavar="NAME|DIR",
            help=f"{', '.join(PUBLISHED)}, tiny, a Hub repository, or a directory. Can be repeated: the "
            "other models are compared with the first.",
            autocompletion=options.complete_model,
        ),
    ] = None,
    ckpt: Annotated[
        list[str] | None,
        options.of_model(
            "--ckpt",
            metavar="FILE|DIR",
            help="A checkpoint or a directory with a LoRA adapter. Can be repeated.",
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
    """Compare how well models predict and answer. With --questions, only show their answers."""
    console = Console(quiet)
    with options.named_as_typed("gpt2 evaluate"):
        sampling = SamplingConfig(max_new_tokens, temp, seed=seed)
        config = EvaluationConfig(
            stride, DEFAULTS.answers if answers is None else answers, sampling, bertscore, bertscore_model, seed=seed
        )
    if questions and data is None:
        raise UsageError("--questions needs --data FILE, such as a .txt file with a question on each line")
    if not model and not ckpt and not answers_from:
        ckpt = [default_checkpoint("evaluate")]
    if out is not None:
        check_out(out, EVALUATION, [data, *(model or ()), *(ckpt or ()), *(answers_from or ())], force)
    from gpt2cli.checkpoints.model_spec import ModelSpec

    machine = ModelSpec(device=device, precision=precision, offline=offline, threads=threads)
    check_inputs(machine, models=model or [], ckpts=ckpt or [], data=data, answers_from=answers_from or [])
    if bertscore and not questions:  # together they are refused later
        from gpt2cli.evaluation.bertscore import check_bertscore

        check_bertscore(bertscore_model, offline)
    with working(console, "reading the data and the models"):
        if threads:
            import torch

            torch.set_num_threads(threads)
        job = prepare(
            console,
            config,
            machine,
            models=model or [],
            ckpts=ckpt or [],
            template=None if template is None else read_template(template),
            data=data,
            split=split,
            skip_bad=skip_bad,
            columns=None if columns is None else parse_columns(columns),
            answers=answers,
            answers_from=answers_from or [],
            questions=questions,
        )
    run(console, job, json, out)


def run(console: Console, job: "Job", json: bool, out: Path | None) -> None:
    """Evaluate with progress on the terminal, and print or write the results."""
    from gpt2cli.cli.views.evaluation import EvaluationProgress, show_evaluation
    from gpt2cli.evaluation.engine import Advanced, evaluate
    from gpt2cli.evaluation.results import Evaluation
    from gpt2cli.progress import Note

    with EvaluationProgress(console) as progress:
        try:
            for event in waiting_for(evaluate(job), console, "loading the model"):
                raise_received()  # compilers catch what a signal raises
                match event:
                    case Note():
                        console.note(event.text)
                    case Advanced():
                        progress.advance(event)
                    case Evaluation():
                        progress.close()
                        if out is not None:
                            from gpt2cli.evaluation.report import page

                            whole = partial(event.as_dict, with_records=True)
                            write_report(out, whole, partial(page, event), RESULTS_ARE_KEPT)
                        if json:
                            console.json(event.as_dict())
                        else:
                            show_evaluation(console, event, out)
                        if out is not None:
                            console.note(f"wrote {out}")
        except KeyboardInterrupt:
            progress.close()
            console.note("finished results are kept: the same command continues from them")
            raise
