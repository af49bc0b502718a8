"""`gpt2 quantize`: write a model to a file with 8 or 4 bits per weight."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from gpt2cli.cli import options
from gpt2cli.cli.terminal import Console
from gpt2cli.cli.views.spinner import working

EXAMPLES = """
gpt2 quantize --ckpt finetuned.pt --bits 8 --out small.safetensors  # a quarter of the size, almost no loss
gpt2 quantize --model gpt2-xl --bits 4 --out xl.safetensors  # a sixth of the size, with some loss
gpt2 chat --ckpt small.safetensors  # every command opens the file
"""
of_quantize = partial(typer.Option, rich_help_panel="Quantize")


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(quantize)


def quantize(
    bits: Annotated[
        int,
        of_quantize(
            "--bits",
            metavar="8|4",
            help="Bits per weight. 8: a quarter of fp32's size, almost no loss. 4: smaller, with some loss.",
        ),
    ],
    out: Annotated[Path, of_quantize("--out", metavar="FILE", help="The .safetensors file to write.")],
    force: Annotated[bool, of_quantize("--force", help="Replace an existing file.")] = False,
    model: options.Model = None,
    ckpt: options.Checkpoint = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write a model with 8 or 4 bits per weight. Every command opens the file with --ckpt."""
    from gpt2cli.checkpoints.model_spec import ModelSpec
    from gpt2cli.checkpoints.quantize_request import check_request

    spec = ModelSpec(model, ckpt, offline=offline)
    check_request(spec, bits, out, force)
    console = Console(quiet)
    with working(console, "starting"):
        from gpt2cli.checkpoints.quantized_file import quantize_model
        from gpt2cli.cli.views.downloads import showing_downloads

    with working(console, "quantizing"), showing_downloads(console) as progress:
        done = quantize_model(spec, bits, out, force=force, progress=progress)
    advice = "; 4 bits may lose a short fine-tuning: compare both with `gpt2 evaluate`" if bits == 4 else ""
    console.note(
        f"wrote {out} in {bits} bits: {decimal(done.bytes)}, where fp32 takes {decimal(done.fp32_bytes)}; "
        f"rounding changed the weights by {100 * done.error:.2f} % (root mean square){advice}"
    )
