"""`gpt2 chat`: a conversation with a model."""

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt2cli import prompts
from gpt2cli.cli import options
from gpt2cli.cli.chat_commands import COMMANDS, WORDS, Leave, run_command
from gpt2cli.cli.environment import current
from gpt2cli.cli.error_messages import report
from gpt2cli.cli.interrupts import forget_ctrl_c, raise_received
from gpt2cli.cli.open_model import open_model, sample_as_json
from gpt2cli.cli.read_text import read_prompt
from gpt2cli.cli.terminal import Console, typing_unseen
from gpt2cli.config import CHAT, FINETUNED, SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.prompts import ALPACA, PromptTemplate

if TYPE_CHECKING:
    from gpt2cli.checkpoints.model_spec import ModelSpec
    from gpt2cli.cli.chat_session import Session
    from gpt2cli.cli.line_editor import LineEditor

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
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            metavar="TEXT",
            help="Answer this instruction and exit. `-` reads it from stdin, as a pipe does.",
        ),
    ] = None,
    max_new_tokens: options.MaxNewTokens = CHAT.max_new_tokens,
    temp: options.Temperature = CHAT.temperature,
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
    """Chat with a fine-tuned model. The default is finetuned.pt."""
    console = Console(quiet)
    with options.named_as_typed("gpt2 chat"):
        sampling = SamplingConfig(
            max_new_tokens, temp, top_k, top_p, min_p, repetition_penalty, seed, tuple(stop or ())
        )
    once = prompt is not None or not current().stdin.isatty()
    if json and not once:
        raise UsageError("--json is for a single answer: add --prompt TEXT, or ask through a pipe")
    if ckpt is None and model is None:
        ckpt = default_checkpoint("chat with")
    chosen = None if template is None else prompts.read_template(template)
    text = read_prompt(prompt) if once else ""

    with nullcontext() if once else typing_unseen():
        from gpt2cli.checkpoints.model_spec import ModelSpec
        from gpt2cli.cli.chat_session import Session

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
    """The file that `finetune` writes by default. Raises UsageError if it is not here."""
    if not Path(FINETUNED).exists():
        raise UsageError(
            f"there is no {FINETUNED} here to {purpose}: make one with `gpt2 finetune`, or name a --ckpt or a --model"
        )
    return FINETUNED


def read_template(console: Console, spec: "ModelSpec") -> PromptTemplate:
    """The prompt template that is stored with a model. If there is none, Alpaca's, with a note."""
    stored = spec.metadata().prompt_template(spec.name)
    if stored is None:
        console.note(f"{spec.name} has no prompt template, so it may not be tuned on instructions: using Alpaca's")
    return stored or ALPACA


def answer_once(session: "Session", text: str, json: bool, load_s: float) -> None:
    """Answer one instruction, for scripts."""
    from gpt2cli.cli.chat_session import show

    run = session.start(session.template.prompt(text))
    if json:
        for _ in run:
            pass
        session.console.json(sample_as_json(text, run.samples[0], run, load_s))
    else:
        show(session.console, run)
    session.note_end(run, "-n raises it")


def converse(session: "Session") -> None:
    """Answer instructions and run commands until the user leaves, by Ctrl-D, by /exit, or by a second Ctrl-C.

    Any other error is reported in one line, and the conversation goes on.
    """
    from gpt2cli.cli.line_editor import LineEditor

    editor = LineEditor({name: command.argument for name, command in COMMANDS.items()})
    session.console.note(f"chatting with {session.name}: /help lists what can be typed, Ctrl-D leaves")
    with suppress(Leave):
        while True:
            take_turn(session, editor)


def take_turn(session: "Session", editor: "LineEditor") -> None:
    """Read and run a line. Raises Leave, or KeyboardInterrupt for the second Ctrl-C in a row."""
    from gpt2cli.cli.chat_session import AGAIN

    try:
        line = read_line(editor)
        session.interrupted = False
        if line.strip():
            take(session, line)
            session.console.err.print()
    except KeyboardInterrupt:
        if session.interrupted:
            raise
        session.interrupted = True
        forget_ctrl_c()
        session.console.note(AGAIN)


def read_line(editor: "LineEditor") -> str:
    """Read a line from the editor. Raises Leave for Ctrl-D, and the editor's error if it fails twice in a row."""
    try:
        try:
            return editor.read()
        except EOFError:
            raise
        except Exception as error:
            raise_received()
            report(error)
            return editor.read()
    except EOFError:
        raise Leave from None


def take(session: "Session", line: str) -> None:
    """Run a line, or report its error. Raises Leave, and BrokenPipeError if stdout is closed."""
    try:
        if line.strip() in WORDS and not line[0].isspace():
            line = WORDS[line.strip()]
            session.console.note(f"taken as {line}; a space before the word makes it an instruction")
        if line.startswith("/"):
            run_command(session, line)
        else:
            session.ask(line.strip())
    except (Leave, BrokenPipeError):
        raise
    except Exception as error:
        raise_received()
        report(error)
