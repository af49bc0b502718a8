"""`gpt2 quantize`: a model in a file of 8 or 4 bits a weight."""

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from gpt2cli.cli import options
from gpt2cli.cli.terminal import Console

EXAMPLES = """
[bold]Examples[/bold]

gpt2 quantize --ckpt finetuned.pt --bits 8 --out small.safetensors

gpt2 quantize --model gpt2-xl --bits 4 --out xl.safetensors

gpt2 chat --ckpt small.safetensors
"""
PANEL = "Quantize"


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(quantize)


def quantize(
    bits: Annotated[
        int,
        typer.Option(
            "--bits",
            metavar="8|4",
            help="What a weight is held in: 8, a quarter of the size with next to no loss, or 4, still smaller.",
            rich_help_panel=PANEL,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="What to write: a .safetensors file.", rich_help_panel=PANEL),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is there.", rich_help_panel=PANEL)
    ] = False,
    model: options.Model = None,
    ckpt: options.Checkpoint = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write a model in 8 or 4 bits a weight. Every command opens it as --ckpt."""
    from gpt2cli.checkpoints.model_spec import ModelSpec
    from gpt2cli.checkpoints.quantized_file import quantize_model
    from gpt2cli.cli.views.downloads import showing_downloads

    console = Console(quiet)
    with showing_downloads(console) as progress:
        done = quantize_model(ModelSpec(model, ckpt, offline=offline), bits, out, force=force, progress=progress)
    console.note(
        f"wrote {out} in {bits} bits: {decimal(done.bytes)}, where fp32 takes {decimal(done.fp32_bytes)}; "
        f"rounding changed the weights by {done.error:.2%} (root mean square)"
    )
