"""`gpt2 generate`: continue a prompt."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt2cli.cli import options
from gpt2cli.cli.console import Console
from gpt2cli.cli.describe import counted
from gpt2cli.config import SamplingConfig
from gpt2cli.errors import DataError, UsageError

if TYPE_CHECKING:
    from gpt2cli.generation.text import Sample, TextGeneration

EXAMPLES = """
[bold]Examples[/bold]

gpt2 generate "The meaning of life is" --temp 0.7 --top-k 40

gpt2 generate "Q: Who wrote Hamlet?" -n 20 --temp 0 --stop "\\n" --no-echo

cat story.txt | gpt2 generate --model gpt2-medium --top-p 0.9

gpt2 generate "Once upon a time" --num-samples 3 --seed 1 --json
"""
DEFAULTS = SamplingConfig()


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(generate)


def generate(
    prompt: Annotated[
        str | None,
        typer.Argument(help="What to continue; `-` reads it from stdin, as a pipe does.", show_default=False),
    ] = None,
    prompt_file: Annotated[
        Path | None, typer.Option("--prompt-file", metavar="FILE", help="Read the prompt from a file.")
    ] = None,
    max_new_tokens: options.MaxNewTokens = DEFAULTS.max_new_tokens,
    temp: options.Temperature = DEFAULTS.temperature,
    top_k: options.TopK = DEFAULTS.top_k,
    top_p: options.TopP = DEFAULTS.top_p,
    min_p: options.MinP = DEFAULTS.min_p,
    repetition_penalty: options.RepetitionPenalty = DEFAULTS.repetition_penalty,
    seed: options.Seed = None,
    stop: options.Stop = None,
    num_samples: Annotated[
        int,
        typer.Option(
            "--num-samples", help="How many samples to write, in one batch.", rich_help_panel=options.SAMPLING_PANEL
        ),
    ] = DEFAULTS.num_samples,
    no_echo: Annotated[
        bool,
        typer.Option("--no-echo", help="Leave the prompt out of the output.", rich_help_panel=options.OUTPUT_PANEL),
    ] = False,
    no_stream: Annotated[
        bool, typer.Option("--no-stream", help="Print when all is written.", rich_help_panel=options.OUTPUT_PANEL)
    ] = False,
    json: options.Json = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="Say how fast it went, on stderr.", rich_help_panel=options.OUTPUT_PANEL)
    ] = False,
    model: options.Model = None,
    ckpt: options.Checkpoint = None,
    device: options.Device = "auto",
    precision: options.PrecisionOption = options.Precision.auto,
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Continue a prompt with GPT-2, and show the text as it is written."""
    console = Console(quiet)
    with options.named_as_typed("gpt2 generate"):
        sampling = SamplingConfig(
            max_new_tokens, temp, top_k, top_p, min_p, repetition_penalty, seed, tuple(stop or ()), num_samples
        )
    text = read_prompt(prompt, prompt_file)

    import torch

    from gpt2cli.checkpoints.load import load
    from gpt2cli.cli.downloads import showing_downloads
    from gpt2cli.generation.text import TextGeneration

    if threads:
        torch.set_num_threads(threads)
    start = time.perf_counter()
    with showing_downloads(console) as progress:
        gpt = load(model, ckpt=ckpt, device=device, precision=precision.value, offline=offline, progress=progress)
    load_s = time.perf_counter() - start

    run = TextGeneration(gpt, text, sampling)
    if run.dropped:
        dropped, kept = counted(run.dropped, "token"), len(run.prompt_ids)
        console.note(f"the prompt is too long: left out {dropped} at its beginning, kept the last {kept:,}")
    if json:
        for _ in run:
            pass
        for sample in run.samples:
            console.json(as_json(text, sample, run, load_s))
    else:
        try:
            show(console, run, None if no_echo else text, live=not no_stream)
        finally:  # what is said of an error or Ctrl-C is not part of the text
            console.end_line()
    if stats:
        console.note(describe_speed(run, load_s))


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """The prompt from the argument, the file or stdin; a newline at the end of the latter two is not part of it."""
    if prompt is not None and file is not None:
        raise UsageError("give the prompt as an argument or as --prompt-file, not both")
    if file is not None:
        try:
            return decode(file.read_bytes(), str(file)).removesuffix("\n")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise DataError(f"cannot read {file} ({error.strerror}): name a file as --prompt-file") from None
    if prompt == "-" or (prompt is None and not sys.stdin.isatty()):
        return decode(sys.stdin.buffer.read(), "stdin").removesuffix("\n")
    # the very bytes that were typed: a locale without UTF-8 has misread them
    return decode(os.fsencode(prompt or ""), "the prompt")


def decode(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not valid UTF-8 at byte {error.start}: convert it to UTF-8") from None


def show(console: Console, run: "TextGeneration", echo: str | None, live: bool) -> None:
    """Print the first sample as it is written (if `live`), the others when they are complete."""
    several = len(run.samples) > 1

    def begin(number: int) -> None:
        if several:
            console.write(f"--- sample {number} of {len(run.samples)} ---\n", style="dim")
        if echo:
            console.write(echo, style="bold")

    if live:
        begin(1)
    for sample, text in run:
        if live and sample is run.samples[0]:
            console.write(text)
    for number, sample in enumerate(run.samples, start=1):
        if number > 1 or not live:
            begin(number)
            console.write(sample.text)
        console.write("\n")


def as_json(prompt: str, sample: "Sample", run: "TextGeneration", load_s: float) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "text": sample.text,
        "tokens": sample.tokens,
        "finish_reason": sample.finish_reason,
        "seed": sample.seed,
        "stats": {
            "prompt_tokens": len(run.prompt_ids),
            "new_tokens": len(sample.tokens),
            "prefill_tok_s": run.prefill_tok_s,
            "decode_tok_s": run.decode_tok_s,
            "load_s": load_s,
        },
    }


def describe_speed(run: "TextGeneration", load_s: float) -> str:
    new = sum(len(sample.tokens) for sample in run.samples)
    parts = [f"loaded in {load_s:.2f} s", counted(len(run.prompt_ids), "prompt token")]
    if run.prefill_tok_s:
        parts[-1] += f" at {run.prefill_tok_s:.0f} tokens/s"
    parts.append(counted(new, "new token"))
    if run.decode_tok_s:
        parts[-1] += f" at {run.decode_tok_s:.1f} tokens/s"
    parts.append(f"seed {run.samples[0].seed}")
    return " · ".join(parts)
