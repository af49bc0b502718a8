"""`gpt2 info`: what a model consists of and needs; without a model, what is on disk and how to delete it."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from gpt2cli import paths
from gpt2cli.cli import options
from gpt2cli.cli.terminal import Console, visible_line
from gpt2cli.counted import counted
from gpt2cli.errors import UsageError

if TYPE_CHECKING:
    from gpt2cli.bench import Speed
    from gpt2cli.checkpoints.model_spec import ModelSpec

EXAMPLES = """
gpt2 info --model gpt2-xl  # its parts, and whether it fits this machine, before it is downloaded
gpt2 info --ckpt finetuned.pt  # also what it was trained on
gpt2 info --model tiny --bench  # also its speed here
gpt2 info --model tiny --json  # the same for programs
gpt2 info  # every place on disk, its size, and the command that deletes it
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(info)


def info(
    bench: Annotated[
        bool, typer.Option("--bench", help="Also load the model and measure how fast it generates text.")
    ] = False,
    json: options.Json = False,
    model: options.Model = None,
    ckpt: options.Checkpoint = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Show a model's parts, size, memory and origin. Without a model, show what is on disk and how to delete it.

    Weights are neither read nor downloaded, except with --bench. Memory and speed are those of a CPU. The memory is
    that of generating 100 tokens, and of fine-tuning on long records at the default settings.

    The list of what is on disk lacks the weights that you write with --out, and the runs with --run-dir.
    """
    console = Console(quiet)
    if model is not None or ckpt is not None:
        show_model(console, model, ckpt, offline, bench, json)
    elif bench:
        raise UsageError("--bench measures a model: name it with --model or --ckpt")
    else:
        show_places(console, json)


def show_model(console: Console, model: str | None, ckpt: str | None, offline: bool, bench: bool, json: bool) -> None:
    """Print the facts and sizes of a model."""
    from gpt2cli.checkpoints.model_spec import ModelSpec
    from gpt2cli.cli.views.spinner import working

    spec = ModelSpec(model, ckpt, "cpu", offline=offline)
    spec.check()
    with working(console, "starting"):
        from gpt2cli.checkpoints.described import describe
        from gpt2cli.cli.model_info import model_info
        from gpt2cli.cli.views.downloads import showing_downloads
        from gpt2cli.cli.views.info import show

    with working(console, f"reading {spec.name}"), showing_downloads(console) as progress:
        found = model_info(spec.name, describe(spec, progress))
    if bench:
        found = replace(found, speed=measure(console, spec, found.config.block_size))
    if json:
        console.json(found.as_dict())
    else:
        show(found)


def measure(console: Console, spec: "ModelSpec", window: int) -> "Speed":
    """Load the model and measure its speed, as `gpt2 bench` does, with fewer tokens if its window is small."""
    from gpt2cli.cli.commands.bench import measure_here
    from gpt2cli.config import BenchConfig

    usual = BenchConfig()
    prompt = max(1, min(usual.prompt_tokens, window // 3))
    config = BenchConfig(prompt, min(usual.new_tokens, window - prompt))
    return measure_here(console, spec, config, None, False)


def show_places(console: Console, json: bool) -> None:
    """Print what is on disk."""
    from rich.filesize import decimal

    from gpt2cli.cli.stored_files import places, remove_all

    found = places()
    if json:
        listed = [asdict(place) | {"path": str(place.path)} for place in found]
        console.json({"home": str(paths.home()), "places": listed, "remove_all": remove_all(found)})
        return
    for place in filter(lambda place: place.bytes, found):
        console.write(f"{counted(place.count, place.name.removesuffix('s'))}, {decimal(place.bytes)}\n", "bold")
        console.write(f"  {visible_line(str(place.path))}\n")
        console.write(f"  {visible_line(place.remove)}\n", "dim")
    total = sum(place.bytes for place in found)
    everything = remove_all(found)
    last = f"to delete everything: {visible_line(everything)}" if everything else "nothing is on disk yet"
    console.write(f"{decimal(total)} in all; {last}\n")
    console.note("the files that you wrote with --out are not among them")
