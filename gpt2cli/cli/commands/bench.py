"""`gpt2 bench`: how fast a model runs here, and how much faster it could."""

import dataclasses
import json as json_format
import subprocess
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gpt2cli.cli import options
from gpt2cli.cli.environment import current
from gpt2cli.cli.terminal import Console
from gpt2cli.config import DEFAULT_MODEL, BenchConfig
from gpt2cli.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from gpt2cli.bench import Speed

EXAMPLES = """
[bold]Examples[/bold]

gpt2 bench

gpt2 bench --all

gpt2 bench --model gpt2-medium --precision int8 --threads 4

gpt2 bench --ckpt finetuned.pt --prompt-tokens 512 --new-tokens 64 --json
"""
DEFAULTS = BenchConfig()
RUN_PANEL = "Run"


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(bench)


def bench(
    prompt_tokens: Annotated[
        int, typer.Option("--prompt-tokens", help="How many tokens to read.", rich_help_panel=RUN_PANEL)
    ] = DEFAULTS.prompt_tokens,
    new_tokens: Annotated[
        int, typer.Option("--new-tokens", "-n", help="How many tokens to write.", rich_help_panel=RUN_PANEL)
    ] = DEFAULTS.new_tokens,
    repeats: Annotated[
        int,
        typer.Option(
            "--repeats", help="Take the median of so many runs, after one to warm up.", rich_help_panel=RUN_PANEL
        ),
    ] = DEFAULTS.repeats,
    all: Annotated[
        bool,
        typer.Option("--all", help="Compare all precisions, each in a process of its own.", rich_help_panel=RUN_PANEL),
    ] = False,
    json: options.Json = False,
    model: options.Model = None,
    ckpt: options.Checkpoint = None,
    device: options.Device = "auto",
    precision: options.PrecisionOption = options.Precision.auto,
    threads: options.Threads = None,
    compile: options.Compile = False,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Measure how fast a model reads and writes, and how near that comes to what the memory allows.

    Tokens are drawn by chance for the prompt, and written greedily one at a time, without speculation.
    """
    console = Console(quiet)
    with options.named_as_typed("gpt2 bench"):
        config = BenchConfig(prompt_tokens, new_tokens, repeats)
    if all and precision is not options.Precision.auto:
        raise UsageError("--all takes every precision: leave --precision out")
    if all:
        say_what_is_assumed(console, model, ckpt, offline)
    else:
        fetch(console, model, ckpt, offline)
        speed = measure_here(console, model, ckpt, device, precision.value, threads, compile, offline, config)
        if json:
            console.json(dataclasses.asdict(speed))
        else:
            from gpt2cli.cli.views.bench import show_speed

            show_speed(speed, config)
        return

    given = {"--model": model, "--ckpt": ckpt, "--device": device, "--threads": threads}
    given |= {"--prompt-tokens": prompt_tokens, "--new-tokens": new_tokens, "--repeats": repeats}
    arguments = [f"{name}={value}" for name, value in given.items() if value is not None]
    arguments += ["--offline"] * offline + ["--debug"] * debug + ["--compile"] * compile
    speeds = []
    for each in options.Precision:
        if each is not options.Precision.auto:
            speeds.append(measure_apart(console, each.value, arguments))
            if json:
                console.json(dataclasses.asdict(speeds[-1]))
    if not json:
        from gpt2cli.cli.views.bench import show_comparison

        show_comparison(speeds, config)


def fetch(console: Console, model: str | None, ckpt: str | None, offline: bool) -> None:
    """Download what is not there, so that loading takes as long as it does every other time."""
    if ckpt is None:
        from gpt2cli.checkpoints.places import find_directory
        from gpt2cli.cli.views.downloads import showing_downloads

        with showing_downloads(console) as progress:
            find_directory(DEFAULT_MODEL if model is None else model, offline, progress)


def say_what_is_assumed(console: Console, model: str | None, ckpt: str | None, offline: bool) -> None:
    """Download and open the model once, to say what there is to say of it: the processes that measure are quiet."""
    from gpt2cli.checkpoints.load import load_plain
    from gpt2cli.cli.views.downloads import showing_downloads

    with showing_downloads(console) as progress:
        load_plain(model, ckpt=ckpt, device="cpu", offline=offline, progress=progress)


def measure_here(
    console: Console,
    model: str | None,
    ckpt: str | None,
    device: str,
    precision: str,
    threads: int | None,
    compile: bool,
    offline: bool,
    config: BenchConfig,
) -> "Speed":
    """Load the model in this process, and measure it, showing how far that is."""
    from gpt2cli.bench import Run, WarmedUp, measure, summarize
    from gpt2cli.cli.open_model import open_model
    from gpt2cli.cli.views.bench import showing_runs

    gpt, load_s = open_model(console, model, ckpt, device, precision, threads, compile, offline, for_text=False)
    runs: list[Run] = []
    with showing_runs(console, gpt.precision, config.repeats + 1) as advance:
        for event in measure(gpt, config):
            match event:
                case WarmedUp():
                    warmed_up = event
                case Run():
                    runs.append(event)
            advance()
    return summarize(ckpt or model or DEFAULT_MODEL, gpt, load_s, warmed_up, runs)


def measure_apart(console: Console, precision: str, arguments: list[str]) -> "Speed":
    """As `measure_here`, in a process of its own: no memory and no warmth of another precision is in the figures."""
    from gpt2cli.bench import Speed
    from gpt2cli.cli.views.bench import showing_runs

    command = [sys.executable, "-m", "gpt2cli", "bench", "--json", "--quiet", f"--precision={precision}", *arguments]
    with showing_runs(console, precision, None):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8")
    if done.returncode < 0:
        raise ResourceError(f"measuring {precision} was ended by signal {-done.returncode}: is there enough memory?")
    if done.returncode:
        current().stderr.write(done.stderr)  # it has said why
        raise typer.Exit(done.returncode)
    return Speed(**json_format.loads(done.stdout))
