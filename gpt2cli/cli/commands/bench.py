"""`gpt2 bench`: measure how fast a model runs here, and compare that with the limit of the memory."""

import dataclasses
import json as json_format
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from gpt2cli.cli import options
from gpt2cli.cli.environment import current
from gpt2cli.cli.terminal import Console
from gpt2cli.config import BenchConfig
from gpt2cli.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from gpt2cli.bench import Speed
    from gpt2cli.checkpoints.model_spec import ModelSpec

EXAMPLES = """
[bold]Examples[/bold]

gpt2 bench

gpt2 bench --all

gpt2 bench --model gpt2-medium --precision int8 --threads 4

gpt2 bench --ckpt finetuned.pt --prompt-tokens 512 --new-tokens 64 --json
"""
DEFAULTS = BenchConfig()
of_run = partial(typer.Option, rich_help_panel="Run")


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(bench)


def bench(
    prompt_tokens: Annotated[
        int, of_run("--prompt-tokens", help="The number of tokens in the prompt.")
    ] = DEFAULTS.prompt_tokens,
    new_tokens: Annotated[
        int, of_run("--new-tokens", "-n", help="The number of tokens to generate.")
    ] = DEFAULTS.new_tokens,
    repeats: Annotated[
        int,
        of_run("--repeats", help="The number of runs after a warm-up run. The medians are reported."),
    ] = DEFAULTS.repeats,
    all: Annotated[
        bool,
        of_run("--all", help="Compare all precisions, each in a separate process."),
    ] = False,
    json: options.Json = False,
    model: options.Model = None,
    ckpt: options.Checkpoint = None,
    device: options.Device = "auto",
    precision: options.PrecisionOption = "auto",
    threads: options.Threads = None,
    compile: options.Compile = False,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Measure how fast a model reads and writes tokens, and compare that with the limit of the memory.

    The prompt is random tokens. Decoding is greedy, one token at a time, without prompt-lookup decoding.
    """
    console = Console(quiet)
    with options.named_as_typed("gpt2 bench"):
        config = BenchConfig(prompt_tokens, new_tokens, repeats)
    if all and precision != "auto":
        raise UsageError("--all takes every precision: leave --precision out")
    from gpt2cli.checkpoints.model_spec import ModelSpec
    from gpt2cli.cli.views import bench as views

    spec = ModelSpec(model, ckpt, device, precision, offline)
    if all:
        options_of_all = {"--threads": threads, "--compile": compile, "--debug": debug}
        speeds = []
        for speed in measure_all(console, spec, config, options_of_all):
            speeds.append(speed)
            if json:
                console.json(dataclasses.asdict(speed))
        if not json:
            views.show_comparison(speeds, config)
    else:
        speed = measure_here(console, spec, threads, compile, config)
        if json:
            console.json(dataclasses.asdict(speed))
        else:
            views.show_speed(speed, config)


def measure_all(
    console: Console, spec: "ModelSpec", config: BenchConfig, others: dict[str, int | None]
) -> "Iterator[Speed]":
    """Measure the model in each precision, in separate processes. `others` are their other options, by name.

    First the model is read here: the processes are quiet, so its notes are shown now, and its files are then in the
    memory of the operating system for all of them.
    """
    from gpt2cli.cli.views.downloads import showing_downloads

    with showing_downloads(console) as progress:
        spec.read(progress)
    values = {"--model": spec.model, "--ckpt": spec.ckpt, "--device": spec.device, "--offline": spec.offline, **others}
    values |= {"--prompt-tokens": config.prompt_tokens, "--new-tokens": config.new_tokens, "--repeats": config.repeats}
    arguments = []
    for name, value in values.items():
        if isinstance(value, bool):
            arguments += [name] * value
        elif value is not None:
            arguments.append(f"{name}={value}")
    for precision in get_args(options.Precision):
        if precision != "auto":
            yield measure_apart(console, precision, arguments)


def measure_here(
    console: Console, spec: "ModelSpec", threads: int | None, compile: bool, config: BenchConfig
) -> "Speed":
    """Load the model in this process and measure it, with progress on the terminal."""
    from gpt2cli.bench import Run, WarmedUp, measure, summarize
    from gpt2cli.cli.open_model import open_model
    from gpt2cli.cli.views.bench import showing_runs
    from gpt2cli.cli.views.downloads import showing_downloads

    with showing_downloads(console) as progress:
        spec.fetch(progress)  # a download is not a part of the load time
    decoder, load_s = open_model(console, spec, threads, compile, for_text=False)
    runs: list[Run] = []
    with showing_runs(console, decoder.precision, config.repeats + 1) as advance:
        for event in measure(decoder, config):
            match event:
                case WarmedUp():
                    warmed_up = event
                case Run():
                    runs.append(event)
            advance()
    return summarize(spec.name, decoder, load_s, warmed_up, runs)


def measure_apart(console: Console, precision: str, arguments: list[str]) -> "Speed":
    """As `measure_here`, in a separate process, so that other precisions do not change the memory and the speed."""
    from gpt2cli.bench import Speed
    from gpt2cli.cli.views.bench import showing_runs

    command = [sys.executable, "-m", "gpt2cli", "bench", "--json", "--quiet", f"--precision={precision}", *arguments]
    with showing_runs(console, precision, None):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8")
    if done.returncode < 0:
        raise ResourceError(f"measuring {precision} was ended by signal {-done.returncode}: free some memory")
    if done.returncode:
        current().stderr.write(done.stderr)  # the message that says why
        raise typer.Exit(done.returncode)
    return Speed(**json_format.loads(done.stdout))
