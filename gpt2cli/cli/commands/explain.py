"""`gpt2 explain`: what happens inside a model while it reads a prompt."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt2cli.cli import options
from gpt2cli.cli.config_options import option
from gpt2cli.cli.explain_job import Job, chat_ids, compute, load
from gpt2cli.cli.open_model import note_ablated
from gpt2cli.cli.read_text import note_blank_end, read_prompt, typed
from gpt2cli.cli.report_file import EXPLANATION, check_out, write_report
from gpt2cli.cli.terminal import Console
from gpt2cli.config import ExplainConfig, SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.published import DEFAULT_MODEL, PUBLISHED

if TYPE_CHECKING:
    from gpt2cli.checkpoints.model_spec import ModelSpec
    from gpt2cli.insight.explanation import Explanation

EXAMPLES = """
gpt2 explain "Once upon a time there was a" --model tiny  # a summary, without a network
gpt2 explain "The Eiffel Tower is in" --out tower.html  # and a page with pictures and every number
gpt2 explain "The doctor said that" --target " he" --foil " she"  # why this token rather than that one?
gpt2 explain "When Mary met John, she told" --ablate 9.6,mlp.0  # without a head and an MLP
gpt2 explain "Mary saw John. John saw" --against "Mary saw John. Mary saw"  # what carries the difference?
gpt2 explain "Who are you?" --chat --model gpt2 --ckpt finetuned.pt  # what did fine-tuning change?
gpt2 explain "Call me" --parts lens,attribution --json > found.json  # two parts, for programs
"""
of_question, of_parts = (partial(typer.Option, rich_help_panel=panel) for panel in ("Question", "Parts"))
DEFAULTS, SAMPLING = ExplainConfig(), SamplingConfig()


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(explain)


def explain(
    prompt: Annotated[
        str | None, typer.Argument(help="The text to read. `-` or a pipe reads it from stdin.", show_default=False)
    ] = None,
    prompt_file: Annotated[
        Path | None, of_question("--prompt-file", metavar="FILE", help="Read the prompt from a file.")
    ] = None,
    bos: Annotated[
        bool,
        of_question(
            "--bos",
            help="Put the end-of-text token before the prompt, as in GPT-2's training data before every document.",
        ),
    ] = False,
    chat: Annotated[
        bool,
        of_question(
            "--chat",
            help="Read the prompt as an instruction, in the prompt template of the checkpoint, as `gpt2 chat` does.",
        ),
    ] = False,
    target: Annotated[
        str | None,
        of_question(
            "--target",
            metavar="TEXT",
            help=r"The next token to explain, such as ' Paris' with its blank, or \n. Of several tokens, the first "
            "counts.",
            show_default="the likeliest",
        ),
    ] = None,
    foil: Annotated[
        str | None,
        of_question("--foil", metavar="TEXT", help="Explain the target in comparison with this token."),
    ] = None,
    against: Annotated[
        str | None,
        of_question("--against", metavar="TEXT", help="A prompt with as many tokens, for the part `patching`."),
    ] = None,
    parts: Annotated[
        str | None,
        of_parts(
            "--parts",
            metavar="NAME,...",
            help="tokens, next, attention and attribution: two passes in all, up to 1,024 tokens. lens: the output "
            "matrix after each attention and MLP, as much work as ten passes. saliency: a pass forward and backward "
            "for each of its --steps. ablation: a pass for each head and MLP (156 for gpt2). "
            "patching: a pass for each head, and three for each layer and token. A pass takes twice as long for twice "
            "as many tokens.",
            show_default="all, above 256 tokens the first five",
        ),
    ] = None,
    ablation: Annotated[str, option("Parts", ExplainConfig, "ablation")] = DEFAULTS.ablation,
    steps: Annotated[int, option("Parts", ExplainConfig, "steps")] = DEFAULTS.steps,
    seed: Annotated[int, option("Parts", ExplainConfig, "seed")] = DEFAULTS.seed,
    top: Annotated[int, option("Parts", ExplainConfig, "top")] = DEFAULTS.top,
    temperature: options.Temperature = SAMPLING.temperature,
    top_k: options.TopK = SAMPLING.top_k,
    top_p: options.TopP = SAMPLING.top_p,
    min_p: options.MinP = SAMPLING.min_p,
    out: Annotated[
        Path | None,
        options.of_output(
            "--out",
            metavar="FILE",
            help="Write all that was found: a page that needs no network (.html), or data (.json).",
        ),
    ] = None,
    force: Annotated[
        bool, options.of_output("--force", help="Replace a file at --out that is not an earlier explanation.")
    ] = False,
    json: options.Json = False,
    model: Annotated[
        list[str] | None,
        options.of_model(
            "--model",
            "-m",
            metavar="NAME|DIR",
            help=f"{', '.join(PUBLISHED)}, tiny, a Hub repository, or a directory. A second model, here or as --ckpt, "
            "is compared with the first.",
            show_default=f"{DEFAULT_MODEL}, if there is no --ckpt",
            autocompletion=options.complete_model,
        ),
    ] = None,
    ckpt: Annotated[
        list[str] | None,
        options.of_model(
            "--ckpt",
            metavar="FILE|DIR",
            help="A checkpoint or a directory with a LoRA adapter. After a --model, it is the second model.",
        ),
    ] = None,
    ablate: options.Ablate = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Show what happens inside a model as it reads a prompt.

    The summary shows how the model expected each token, what may come next and how this forms from layer to layer, and
    which heads, MLPs and tokens decide. --out writes a page, --json every number. Everything is computed in fp32,
    whatever the file holds.
    """
    console = Console(quiet)
    with options.named_as_typed("gpt2 explain"):
        config = ExplainConfig(top, ablation, steps, seed)  # type: ignore[arg-type] # which it checks
        sampling = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    from gpt2cli.checkpoints.model_spec import ModelSpec
    from gpt2cli.insight.limits import check_parts
    from gpt2cli.insight.question import ask
    from gpt2cli.model.part_names import parse_parts

    chosen = None if parts is None else [name.strip() for name in parts.split(",")]
    check_parts(chosen, against is not None)
    if chat and (bos or against is not None):
        raise UsageError(f"--chat does not go with {'--bos' if bos else '--against'}: give one of them")
    machine = ModelSpec(device=device, offline=offline, ablate=parse_parts(*ablate or ()))
    models = models_to_explain(model or [], ckpt or [], machine)
    if out is not None:
        inputs = [*(model or ()), *(ckpt or ()), prompt_file and str(prompt_file)]
        check_out(out, EXPLANATION, inputs, force)
    text = read_prompt(prompt, prompt_file)
    if not chat:
        note_blank_end(console, text)
        if not text:
            console.note("the prompt is empty: explaining what follows <|endoftext|>")
    tokens = {"target": target, "foil": foil}
    texts = {name: options.unescaped(given) for name, given in tokens.items() if given is not None}
    texts |= {} if against is None else {"against": against}
    texts = {name: typed(given, f"--{name}") for name, given in texts.items()}
    question, notes = ask(text, **texts, bos=bos, read=chat_ids(console, text, models) if chat else None)
    for note in notes:
        console.note(note.text)
    job = Job(
        models=models,
        prompt=text,
        question=question,
        bos=bos,
        chat=chat,
        parts=chosen,
        config=config,
        sampling=sampling,
    )
    run(console, job, threads, json, out)


def models_to_explain(models: list[str], ckpts: list[str], machine: "ModelSpec") -> "list[ModelSpec]":
    """The model, and the one that is compared with it, if any. Raises UsageError for more, and for wrong names."""
    from gpt2cli.evaluation.inputs import compared_models

    specs = compared_models(models, ckpts, machine) or [machine]
    if len(specs) > 2:
        names = ", ".join(spec.name for spec in specs)
        raise UsageError(f"explain compares two models, and {len(specs)} are given: {names}")
    for spec in specs:
        spec.check()
    return specs


def run(console: Console, job: Job, threads: int | None, json: bool, out: Path | None) -> None:
    """Explain with progress on the terminal; print and write what was found, also after Ctrl-C."""
    from gpt2cli.cli.views.spinner import working

    with working(console, f"loading {' and '.join(spec.name for spec in job.models)}"):
        models = load(console, job.models, threads)
    note_ablated(console, job.models[0])
    explanation, interrupt = compute(console, job, models)
    if interrupt is not None and not explanation.findings:
        raise interrupt
    try:
        if out is not None:
            write(explanation, out)
    finally:  # a full disk does not lose what was found
        if json:
            console.json(explanation.as_dict())
        else:
            from gpt2cli.cli.views.insight import show_explanation

            show_explanation(explanation)
    if out is not None:
        console.note(f"wrote {out}")
    if interrupt is not None:
        console.note("stopped: these are the parts that were finished")
        raise interrupt


def write(explanation: "Explanation", out: Path) -> None:
    """Write the page or the data. Raises ResourceError if that fails."""

    def page() -> str:
        from gpt2cli.insight.page import page

        return page(explanation.as_dict())

    write_report(out, explanation.as_dict, page, "what was found is shown all the same")
