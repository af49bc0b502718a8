"""`gpt2 chat`: a conversation with a model."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt2cli import prompts
from gpt2cli.cli import options
from gpt2cli.cli.environment import current
from gpt2cli.cli.open_model import open_model, sample_as_json
from gpt2cli.cli.read_text import read_prompt
from gpt2cli.cli.terminal import Console, typing_unseen
from gpt2cli.config import CHAT, FINETUNED
from gpt2cli.errors import UsageError
from gpt2cli.prompts import ALPACA, PromptTemplate

if TYPE_CHECKING:
    from gpt2cli.checkpoints.model_spec import ModelSpec
    from gpt2cli.cli.chat_session import Session

EXAMPLES = """
[bold]Examples[/bold]

gpt2 chat

gpt2 chat --ckpt tuned.pt --temp 0.2 --stats

gpt2 chat --prompt "Name three primary colours." --json

cat question.txt | gpt2 chat --model tiny
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(chat)


def chat(
    ctx: typer.Context,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", metavar="TEXT", help="Answer this instruction and exit. `-` or a pipe reads it from stdin."
        ),
    ] = None,
    max_new_tokens: options.MaxNewTokens = CHAT.max_new_tokens,
    temperature: options.Temperature = CHAT.temperature,
    top_k: options.TopK = CHAT.top_k,
    top_p: options.TopP = CHAT.top_p,
    min_p: options.MinP = CHAT.min_p,
    repetition_penalty: options.RepetitionPenalty = CHAT.repetition_penalty,
    seed: options.Seed = None,
    stop: options.Stop = None,
    json: options.Json = False,
    stats: options.Stats = False,
    model: options.Model = None,
    ckpt: options.Checkpoint = None,
    template: options.Template = None,
    device: options.Device = "auto",
    precision: options.PrecisionOption = "auto",
    threads: options.Threads = None,
    compile: options.Compile = False,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Chat with a fine-tuned model: finetuned.pt, unless --ckpt or --model names another."""
    console = Console(quiet)
    sampling = options.sampling_config(ctx)
    once = prompt is not None or not current().stdin.isatty()
    if json and not once:
        raise UsageError("--json is for a single answer: add --prompt TEXT, or ask through a pipe")
    if ckpt is None and model is None:
        ckpt = default_checkpoint("chat with")
    chosen = None if template is None else prompts.read_template(template)
    text = read_prompt(prompt) if once else ""

    from gpt2cli.cli.views.progress import working

    with nullcontext() if once else typing_unseen():
        with working(console, f"loading {ckpt or model}"):
            from gpt2cli.checkpoints.model_spec import ModelSpec
            from gpt2cli.cli.chat_session import Session, converse

            spec = ModelSpec(model, ckpt, device, precision, offline)
            decoder, load_s = open_model(console, spec, threads, compile)
        session = Session(console, spec.name, decoder, chosen or read_template(console, spec), sampling, stats)
        if stats:
            console.note(f"loaded in {load_s:.2f} s")
        if once:
            answer_once(session, text, json, load_s)
        else:
            converse(session)


def default_checkpoint(purpose: str) -> str:
    """The file that `finetune` writes by default. Raises UsageError if it does not exist."""
    if not Path(FINETUNED).exists():
        raise UsageError(
            f"there is no {FINETUNED} here to {purpose}: make one with `gpt2 finetune`, or name a --ckpt or a --model"
        )
    return FINETUNED


def read_template(console: Console, spec: "ModelSpec") -> PromptTemplate:
    """The prompt template that is stored with a model. Without one, prints a note and returns Alpaca's."""
    stored = spec.metadata().prompt_template(spec.name)
    if stored is None:
        console.note(f"{spec.name} has no prompt template, so it may not be tuned on instructions: using Alpaca's")
    return stored or ALPACA


def answer_once(session: "Session", text: str, json: bool, load_s: float) -> None:
    """Answer one instruction, for scripts."""
    from gpt2cli.cli.chat_session import show
    from gpt2cli.cli.views.progress import working

    run = session.start(session.template.prompt(text))
    if json:
        with working(session.console, "answering"):
            for _ in run:
                pass
        session.console.json(sample_as_json(text, run.samples[0], run, load_s))
    else:
        show(session.console, run)
    session.note_end(run, "-n raises it")
