"""`gpt2 generate`: continue a prompt."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt2cli.cli import options
from gpt2cli.cli.open_model import (
    ablated_as_json,
    describe_speed,
    note_ablated,
    note_dropped,
    open_model,
    sample_as_json,
    why_empty,
)
from gpt2cli.cli.prose import Prose
from gpt2cli.cli.read_text import note_blank_end, read_prompt
from gpt2cli.cli.terminal import Console
from gpt2cli.config import SamplingConfig
from gpt2cli.errors import UsageError

if TYPE_CHECKING:
    from gpt2cli.generation.text import TextGeneration

EXAMPLES = """
gpt2 generate "Once upon a time" --model tiny  # with the small model that comes with gpt2cli
gpt2 generate "The meaning of life is" -n 300  # a longer text, with GPT-2
gpt2 generate "Q: Who wrote Hamlet? A:" --temp 0 --stop "\\n"  # the most likely answer, one line
cat draft.txt | gpt2 generate --no-echo > more.txt  # from a pipe, into a file
gpt2 generate "Dear diary," --num-samples 3 --seed 1 --json  # three samples as JSON lines
gpt2 generate "Once upon a time" --model tiny --json --logprobs 5  # what else each token could have been
gpt2 generate "Once upon a time" --model tiny --ablate 1.0,mlp.3  # without a head and an MLP
"""
DEFAULTS = SamplingConfig()


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(generate)


def generate(
    ctx: typer.Context,
    prompt: Annotated[
        str | None, typer.Argument(help="The text to continue. `-` or a pipe reads it from stdin.", show_default=False)
    ] = None,
    prompt_file: Annotated[
        Path | None, typer.Option("--prompt-file", metavar="FILE", help="Read the prompt from a file.")
    ] = None,
    max_new_tokens: options.MaxNewTokens = DEFAULTS.max_new_tokens,
    temperature: options.Temperature = DEFAULTS.temperature,
    top_k: options.TopK = DEFAULTS.top_k,
    top_p: options.TopP = DEFAULTS.top_p,
    min_p: options.MinP = DEFAULTS.min_p,
    repetition_penalty: options.RepetitionPenalty = DEFAULTS.repetition_penalty,
    seed: options.Seed = None,
    stop: options.Stop = None,
    num_samples: options.NumSamples = DEFAULTS.num_samples,
    no_echo: Annotated[bool, options.of_output("--no-echo", help="Do not print the prompt.")] = False,
    no_stream: Annotated[bool, options.of_output("--no-stream", help="Print the text when it is complete.")] = False,
    json: options.Json = False,
    logprobs: options.Logprobs = None,
    stats: options.Stats = False,
    model: options.Model = None,
    ckpt: options.Checkpoint = None,
    ablate: options.Ablate = None,
    device: options.Device = "auto",
    precision: options.PrecisionOption = "auto",
    threads: options.Threads = None,
    compile: options.Compile = False,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Continue a text. It appears while it is generated."""
    console = Console(quiet)
    sampling = options.sampling_config(ctx)
    if logprobs is not None and not json:
        raise UsageError("--logprobs needs --json, which prints them: add --json")
    from gpt2cli.checkpoints.model_spec import ModelSpec
    from gpt2cli.cli.views.spinner import working
    from gpt2cli.model.part_names import parse_parts

    spec = ModelSpec(model, ckpt, device, precision, offline, ablate=parse_parts(*ablate or ()))
    spec.check()
    text = read_prompt(prompt, prompt_file)
    if not text:
        console.note("the prompt is empty: the text starts from <|endoftext|>")
    note_blank_end(console, text)
    with working(console, f"loading {spec.name}"):
        from gpt2cli.generation.text import TextGeneration

        decoder, load_s = open_model(console, spec, threads, compile)
        run = TextGeneration.from_text(decoder, text, sampling, logprobs)
    note_ablated(console, spec)
    note_dropped(console, run)
    if json:
        with working(console, "generating"):
            for _ in run:
                pass
        for sample in run.samples:
            console.json(sample_as_json(text, sample, run, load_s) | ablated_as_json(spec))
    else:
        try:
            with Prose(console) as prose:
                show(console, prose, run, None if no_echo else text, live=not no_stream)
        finally:  # a message about an error begins on a new line
            console.end_line()
        first = run.samples[0]
        if first.finish_reason != "length" and not any(sample.text.strip() for sample in run.samples):
            console.note(f"nothing was generated: {why_empty(first)}")
    if stats:
        console.note(f"loaded in {load_s:.2f} s · {describe_speed(run)}", wrap=True)


def show(console: Console, prose: Prose, run: "TextGeneration", echo: str | None, live: bool) -> None:
    """Print the first sample while it is generated (if `live`), the others when they are complete."""

    def begin(number: int) -> None:
        if len(run.samples) > 1:
            prose.write(f"--- sample {number} of {len(run.samples)} ---\n", style="dim")
        if echo:
            prose.write(echo, style="bold")

    from gpt2cli.cli.views.spinner import waiting_for, working

    if live:
        begin(1)
        for sample, text in waiting_for(run, console, "reading the prompt"):
            if sample is run.samples[0]:
                prose.write(text)
    else:
        with working(console, "generating"):
            for _ in run:
                pass
    for number, sample in enumerate(run.samples, start=1):
        if number > 1 or not live:
            begin(number)
            prose.write(sample.text)
        prose.write("\n")
