"""`gpt2 export`: write a model in the format of another program."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from gpt2cli.cli import options
from gpt2cli.cli.terminal import Console
from gpt2cli.cli.views.spinner import working
from gpt2cli.counted import counted
from gpt2cli.errors import UsageError
from gpt2cli.export.formats import DTYPES, FORMATS

EXAMPLES = """
gpt2 export --ckpt finetuned.pt --format hf --out my-gpt2  # for transformers
gpt2 export --ckpt finetuned.pt --format hf --out my-gpt2 --push owner/my-gpt2  # and upload it to the Hub
gpt2 export --ckpt finetuned.pt --format gguf --dtype q8_0 --out finetuned.gguf  # for llama.cpp, in 8 bits
gpt2 export --ckpt lora.pt --format peft --out my-adapter  # only the LoRA adapter
gpt2 export --model gpt2-medium --format nanogpt --out ckpt.pt  # for nanoGPT's sample.py
"""
of_export = partial(typer.Option, rich_help_panel="Export")


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(export)


def export(
    format: Annotated[
        str,
        of_export(
            "--format",
            metavar="|".join(FORMATS),
            help="hf (transformers), gguf (llama.cpp), peft (only the LoRA adapter), nanogpt, original (a `GPTModel` "
            "with trf_blocks), or gpt2cli (a checkpoint).",
        ),
    ],
    out: Annotated[
        Path,
        of_export(
            "--out",
            metavar="PATH",
            help="The output: a directory for hf and peft, a .gguf file for gguf, else a .pt or .safetensors file.",
        ),
    ],
    dtype: Annotated[
        str | None,
        of_export(
            "--dtype",
            metavar="|".join(DTYPES),
            help="The type of the weights. q8_0 (8 bits) is for gguf only.",
            show_default="f32",
        ),
    ] = None,
    force: Annotated[bool, of_export("--force", help="Replace an earlier export.")] = False,
    push: Annotated[
        str | None,
        of_export(
            "--push",
            metavar="OWNER/NAME",
            help="Also upload the export (hf, gguf, peft) to this repository on the Hub, with the token in HF_TOKEN.",
        ),
    ] = None,
    private: Annotated[bool, of_export("--private", help="If --push creates the repository, make it private.")] = False,
    model: options.Model = None,
    ckpt: options.Checkpoint = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write a model for other programs. gpt2cli also opens every export, with --model or --ckpt."""
    if private and push is None:
        raise UsageError("--private needs --push OWNER/NAME: add it")
    if offline and push is not None:
        raise UsageError("--push needs the network, which --offline forbids: give one of them")
    from gpt2cli.checkpoints.model_spec import ModelSpec
    from gpt2cli.export.request import Request

    request = Request(ModelSpec(model, ckpt, offline=offline), format, out, dtype, force, push)
    request.check()
    console = Console(quiet)
    with working(console, "starting"):
        from gpt2cli.cli.views.downloads import showing_downloads
        from gpt2cli.export.write import export as write
        from gpt2cli.hub import models

    with showing_downloads(console) as progress:
        with working(console, "exporting"):
            files = write(request, progress)
        size = sum(file.stat().st_size for file in files)
        console.note(f"wrote {out} ({counted(len(files), 'file')}, {decimal(size)})")
        if push is not None:
            console.note(f"uploading it to {push}")
            with working(console, "uploading"):
                address = models.upload(push, files, private=private, progress=progress)
            console.write(address + "\n")
