"""`gpt2 serve`: an HTTP server for programs that speak OpenAI's API."""

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from gpt2cli.cli import options
from gpt2cli.cli.config_options import option
from gpt2cli.cli.environment import current
from gpt2cli.cli.terminal import Console
from gpt2cli.config import ServeConfig
from gpt2cli.paths import expand
from gpt2cli.serving import addresses, api_key

EXAMPLES = """
gpt2 serve --model tiny  # http://127.0.0.1:8000 has a page to try it in
gpt2 serve --ckpt finetuned.pt --port 8080  # a model that finetune wrote, for chats
gpt2 serve --model gpt2 --slots 32 --max-queue 500  # for many requests at a time
gpt2 serve --ckpt finetuned.pt --host 0.0.0.0 --api-key-file key.txt  # for other machines, with a key
gpt2 serve --model tiny --cors-origin http://localhost:3000  # for the pages of this site
gpt2 serve --model tiny --json --quiet > requests.jsonl  # a log for programs
"""
DEFAULTS = ServeConfig()
PANEL = "Server"
of_server = partial(typer.Option, rich_help_panel=PANEL)


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(serve)


def serve(
    host: Annotated[str, option(PANEL, ServeConfig, "host")] = DEFAULTS.host,
    port: Annotated[int, option(PANEL, ServeConfig, "port")] = DEFAULTS.port,
    api_key_file: Annotated[
        Path | None,
        of_server(
            "--api-key-file",
            metavar="FILE",
            help="Clients must send the key in this file, as `Authorization: Bearer KEY`. The environment variable "
            f"{api_key.VARIABLE} can hold the key, too.",
            show_default="any key is accepted, or none",
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        of_server(
            "--cors-origin",
            metavar="URL",
            help="Pages of this site may send requests from a browser. Can be repeated.",
            show_default="only the server's own page",
        ),
    ] = None,
    slots: Annotated[int, option(PANEL, ServeConfig, "slots")] = DEFAULTS.slots,
    max_queue: Annotated[int, option(PANEL, ServeConfig, "max_queue")] = DEFAULTS.max_queue,
    json: Annotated[
        bool, options.of_output("--json", help="Print the log on stdout, as JSON lines, and nothing else there.")
    ] = False,
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
    """Serve a model over HTTP, as OpenAI's API does.

    Programs that know this API can complete texts and chat: give them http://127.0.0.1:8000/v1 as the base URL. A page
    to try it in is at http://127.0.0.1:8000. Without --model and --ckpt, the model is gpt2, as in `gpt2 generate`.

    A field that a request leaves out has the default of `gpt2 generate` or `gpt2 chat`. A field that the server does
    not know is refused, by its name. Only programs on this machine can reach the server, unless --host says otherwise.
    The log has no text of a prompt or an answer. Ctrl-C gives running requests 5 seconds, and a second one cuts them.
    """
    console = Console(quiet)
    with options.named_as_typed("gpt2 serve"):
        config = ServeConfig(
            host=host,
            port=port,
            api_key=api_key.read_api_key(api_key_file, current().variables),
            cors_origins=tuple(cors_origin or ()),
            slots=slots,
            max_queue=max_queue,
        )
    addresses.check(config)
    from gpt2cli.checkpoints.model_spec import ModelSpec
    from gpt2cli.cli.views.spinner import working

    spec = ModelSpec(model, ckpt, device, precision, offline)
    spec.check()
    if api_key_file and (advice := api_key.exposed(api_key_file)):
        console.note(advice)
    with working(console, "starting"):
        from gpt2cli.cli.run_server import run_server
    run_server(
        console, config, spec, key=key_in_shell(config, api_key_file), threads=threads, compile=compile, json=json
    )


def key_in_shell(config: ServeConfig, file: Path | None) -> str:
    """What a shell replaces by the key; empty if clients need none."""
    if config.api_key is None:
        return ""
    return f"${api_key.VARIABLE}" if file is None else f"$(cat {shlex.quote(str(expand(file)))})"
