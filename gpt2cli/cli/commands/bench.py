"""`gpt2 bench`: measure a model's speed, and compare it with the limit that the memory sets."""

import dataclasses
import json as json_format
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from gpt2cli.cli import options
from gpt2cli.cli.config_options import option
from gpt2cli.cli.environment import current
from gpt2cli.cli.terminal import Console
from gpt2cli.cli.views.spinner import working
from gpt2cli.config import BenchConfig
from gpt2cli.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from gpt2cli.bench import Speed
    from gpt2cli.checkpoints.model_spec import ModelSpec

EXAMPLES = """
gpt2 bench --model tiny  # a first try, without a network
gpt2 bench --all  # compare all precisions
gpt2 bench --model gpt2-medium --precision int8 --threads 4  # another model, on 4 threads
gpt2 bench --ckpt finetuned.pt --prompt-tokens 512 --new-tokens 64 --json  # a longer prompt, as JSON
"""
DEFAULTS = BenchConfig()
RUN = "Run"
"""The heading of these options on the help page."""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(bench)


def bench(
    prompt_tokens: Annotated[int, option(RUN, BenchConfig, "prompt_tokens")] = DEFAULTS.prompt_tokens,
    new_tokens: Annotated[int, option(RUN, BenchConfig, "new_tokens", "--new-tokens", "-n")] = DEFAULTS.new_tokens,
    repeats: Annotated[int, option(RUN, BenchConfig, "repeats")] = DEFAULTS.repeats,
    all: Annotated[
        bool,
        typer.Option("--all", help="Compare all precisions, each in a separate process.", rich_help_panel=RUN),
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
    """Measure the speed of a model. It is compared with the limit that the memory's bandwidth sets.

    The prompt is random tokens. Decoding is greedy, one token at a time, without prompt-lookup decoding.
    """
    console = Console(quiet)
    with options.named_as_typed("gpt2 bench"):
        config = BenchConfig(prompt_tokens, new_tokens, repeats)
    if all and precision != "auto":
        raise UsageError("--all takes every precision: leave --precision out")
    from gpt2cli.checkpoints.model_spec import ModelSpec

    spec = ModelSpec(model, ckpt, device, precision, offline)
    spec.check()
    with working(console, "starting"):
        from gpt2cli.cli.views import bench as views

    others = {"--threads": threads, "--compile": compile, "--debug": debug}
    speeds = []
    measured = (
        measure_all(console, spec, config, others) if all else [measure_here(console, spec, config, threads, compile)]
    )
    for speed in measured:
        speeds.append(speed)
        if json:
            console.json(dataclasses.asdict(speed))
    if all and not json:
        views.show_comparison(speeds, config)
    elif not json:
        views.show_speed(speed, config)


def measure_all(
    console: Console, spec: "ModelSpec", config: BenchConfig, others: dict[str, int | None]
) -> "Iterator[Speed]":
    """Measure the model in each precision, in separate processes. `others` are their other options, by name.

    The model is read here first. This shows its notes, as the processes are quiet, and the operating system then has
    its files in memory for all of them.
    """
    from gpt2cli.cli.views.downloads import showing_downloads

    with working(console, f"reading {spec.name}"), showing_downloads(console) as progress:
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
    console: Console, spec: "ModelSpec", config: BenchConfig, threads: int | None, compile: bool
) -> "Speed":
    """Load the model in this process and measure it, with progress on the terminal."""
    from gpt2cli.bench import measure, summarize
    from gpt2cli.cli.open_model import open_model
    from gpt2cli.cli.views.bench import showing_runs
    from gpt2cli.cli.views.downloads import showing_downloads

    with showing_downloads(console) as progress:
        spec.fetch(progress)  # a download is not a part of the load time
    with working(console, f"loading {spec.name}"):
        decoder, load_s = open_model(console, spec, threads, compile, for_text=False)
    with showing_runs(console, decoder.precision, config.repeats + 1) as advance:
        measured = measure(decoder, config, advance)
    return summarize(spec.name, decoder, load_s, measured)


def measure_apart(console: Console, precision: str, arguments: list[str]) -> "Speed":
    """As `measure_here`, in a separate process, so that the precisions cannot change each other's results."""
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
