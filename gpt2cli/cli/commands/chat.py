"""`gpt2 chat`: a conversation with a model."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt2cli import prompts
from gpt2cli.cli import options
from gpt2cli.cli.environment import current
from gpt2cli.cli.open_model import open_model, sample_as_json
from gpt2cli.cli.read_text import read_prompt, typed
from gpt2cli.cli.terminal import Console, typing_unseen
from gpt2cli.config import CHAT, FINETUNED
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.prompts import PromptTemplate

if TYPE_CHECKING:
    from gpt2cli.cli.chat_session import Session
    from gpt2cli.inference.decoder import Decoder

EXAMPLES = """
gpt2 chat --model tiny  # with the small model that comes with gpt2cli
gpt2 chat  # with finetuned.pt, which finetune writes
gpt2 chat --ckpt tuned.pt --temp 0.2 --stats  # less random, and with the speed
gpt2 chat --turns 4 --system "You are a pirate."  # with earlier exchanges, and with these words before each
gpt2 chat --model tiny --prompt "What is the opposite of hot?"  # answer once and exit
cat question.txt | gpt2 chat --json  # the input is one instruction, the answer JSON
gpt2 chat --prompt-file questions.txt --each-line --json  # each line is an instruction
"""
CONTINUE = "none"
"""The --template that continues the text."""


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
    prompt_file: Annotated[
        Path | None, typer.Option("--prompt-file", metavar="FILE", help="Read the instruction from a file.")
    ] = None,
    each_line: Annotated[
        bool,
        typer.Option(
            "--each-line",
            help="Take each line of the input as an instruction, and answer one after another. With --turns, the lines "
            "are one conversation.",
        ),
    ] = False,
    turns: Annotated[
        int | None,
        typer.Option(
            "--turns",
            metavar="N",
            min=0,
            help="Include up to N earlier exchanges in each prompt, as many as fit into the window.",
            show_default="0, or all that fit if the model was trained on conversations",
        ),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(
            "--system",
            metavar="TEXT",
            help="Replace the preamble of the prompt template, which is the text before its first heading.",
            show_default="the checkpoint's, else the preamble",
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
    """Chat with a model. Without --ckpt and --model it is finetuned.pt, which finetune writes."""
    console = Console(quiet)
    sampling = options.sampling_config(ctx)
    once = prompt is not None or prompt_file is not None or not current().stdin.isatty()
    for option, is_given in (("--json", json), ("--each-line", each_line)):
        if is_given and not once:
            raise UsageError(f"{option} is for scripts: add --prompt TEXT or --prompt-file FILE, or ask through a pipe")
    if ckpt is None and model is None:
        ckpt = default_checkpoint("chat with")
    from gpt2cli.checkpoints.model_spec import ModelSpec
    from gpt2cli.cli.views.spinner import working

    spec = ModelSpec(model, ckpt, device, precision, offline)
    spec.check()
    system = None if system is None else typed(system, "--system")
    chosen = None
    if template is not None:
        named = None if template == CONTINUE else prompts.read_template(template)
        chosen = with_options(named, turns, system)
    asked = read_instructions(prompt, prompt_file, each_line) if once else []

    with nullcontext() if once else typing_unseen():
        with working(console, f"loading {spec.name}"):
            from gpt2cli.cli.chat_session import Session, converse
            from gpt2cli.generation.conversation import default_turns

            decoder, load_s = open_model(console, spec, threads, compile)
        if template is None:
            chosen = with_options(read_template(console, spec.name, decoder), turns, system)
        included = default_turns(decoder) if turns is None else turns
        session = Session(console, spec.name, decoder, chosen, sampling, stats, included)
        if stats:
            console.note(f"loaded in {load_s:.2f} s")
        for text in asked:
            answer_once(session, text, json, load_s)
            if turns is None:  # the lines are no conversation
                session.forget()
        if not once:
            converse(session)


def default_checkpoint(purpose: str) -> str:
    """The file that `finetune` writes by default. Raises UsageError if it does not exist."""
    if not Path(FINETUNED).exists():
        raise UsageError(
            f"there is no {FINETUNED} here to {purpose}: make one with `gpt2 finetune`, or name a --ckpt or a --model"
        )
    return FINETUNED


def read_instructions(prompt: str | None, file: Path | None, each_line: bool) -> list[str]:
    """The whole input as one instruction, or with `each_line` each line that is not blank.

    Raises UsageError for a file or a pipe without any. An instruction of --prompt may be blank.
    """
    text, is_typed = read_prompt(prompt, file), prompt not in (None, "-")
    found = [line for line in text.split("\n") if line.strip()] if each_line else [text] * bool(text.strip())
    if not found and is_typed:
        return [text]
    if not found:
        where = "the input" if file is None else str(file)
        raise UsageError(f'{where} holds no instruction: write one, as in `gpt2 chat --prompt "Who are you?"`')
    return found


def with_options(template: PromptTemplate | None, turns: int | None, system: str | None) -> PromptTemplate | None:
    """The template with the text of --system. Raises UsageError if --turns or --system can have no effect."""
    if template is None and turns is not None:
        raise UsageError("--turns is for instructions: a text is continued with all of it that fits into the window")
    return template if system is None else prompts.check_place_for_system(template).with_system(system)


def read_template(console: Console, name: str, model: "Decoder") -> PromptTemplate | None:
    """The prompt template that is stored with a model; None for a model that was trained on plain text.

    Without one, prints a note and returns Alpaca's.
    """
    from gpt2cli.generation.conversation import template_of

    if model.origin.is_plain_text:
        console.note(f"{name} was trained on plain text: it continues what you type")
    elif model.origin.template is None:
        console.note(f"{name} has no prompt template, so it may not be tuned on instructions: using Alpaca's")
    try:
        return template_of(model)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from None


def answer_once(session: "Session", text: str, json: bool, load_s: float) -> None:
    """Answer one instruction, for scripts."""
    from gpt2cli.cli.chat_session import show
    from gpt2cli.cli.views.spinner import working
    from gpt2cli.exchanges import Exchange
    from gpt2cli.generation.conversation import output_of

    asked = Exchange(text)
    run = session.start(session.prompt(asked, session.exchanges))
    if json:
        with working(session.console, "answering"):
            for _ in run:
                pass
        session.console.json(sample_as_json(text, run.samples[0], run, load_s))
    else:
        show(session.console, run)
    session.exchanges.append(replace(asked, output=output_of(session.template, run)))
    session.end(run, "-n raises it")
