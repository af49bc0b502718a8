"""`gpt2 download-weights`: download models, list those on disk, delete them."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt2cli.cli import options
from gpt2cli.cli.environment import current
from gpt2cli.cli.terminal import Console, terminal, visible_line
from gpt2cli.config import DEFAULT_MODEL, PUBLISHED
from gpt2cli.errors import UsageError

if TYPE_CHECKING:
    from gpt2cli.hub.model_cache import CachedModel

EXAMPLES = """
[bold]Examples[/bold]

gpt2 download-weights

gpt2 download-weights gpt2-medium

gpt2 download-weights distilbert/distilgpt2 --revision main --force

gpt2 download-weights --list

gpt2 download-weights --remove gpt2-medium
"""
DISK_PANEL = "On disk"


def register(app: typer.Typer) -> None:
    app.command("download-weights", epilog=EXAMPLES)(download_weights)


def complete_cached(incomplete: str) -> list[str]:
    """The models on disk, for the shell."""
    from gpt2cli.hub import model_cache, names

    models = model_cache.list_models()
    return [
        model.model if model.revision == names.DEFAULT_REVISION else f"{model.model}@{model.revision}"
        for model in models
    ]


def download_weights(
    model: Annotated[
        str | None,
        typer.Argument(
            help=f"One of {', '.join(PUBLISHED)}, or a Hub repository `owner/name\\[@revision]`.",
            show_default=DEFAULT_MODEL,
            autocompletion=lambda: list(PUBLISHED),
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(
            "--revision",
            help="A branch, tag or commit.",
            show_default="main",
            rich_help_panel=options.MODEL_PANEL,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Download the model again if it is on disk.", rich_help_panel=options.MODEL_PANEL),
    ] = False,
    list_models: Annotated[
        bool, typer.Option("--list", help="Show the models on disk.", rich_help_panel=DISK_PANEL)
    ] = False,
    remove: Annotated[
        str | None,
        typer.Option(
            "--remove",
            metavar="MODEL",
            help="Delete a model from disk.",
            rich_help_panel=DISK_PANEL,
            autocompletion=complete_cached,
        ),
    ] = None,
    json: options.Json = False,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Download a model's weights, checked against their digests, and print the directory they are in."""
    if sum((model is not None or force, list_models, remove is not None)) > 1 or (list_models and revision):
        raise UsageError("a download (MODEL, --force), --list and --remove exclude each other: use one at a time")
    console = Console(quiet)
    if list_models:
        show_models(console, json)
    elif remove is not None:
        remove_model(console, remove, revision, json)
    else:
        found = download(console, DEFAULT_MODEL if model is None else model, revision, force, offline)
        if json:
            console.json(cached_model_as_json(found))
        else:
            console.write(f"{found.path}\n")


def download(console: Console, model: str, revision: str | None, force: bool, offline: bool) -> "CachedModel":
    from gpt2cli.cli.views.downloads import showing_downloads
    from gpt2cli.hub import models, names

    repo, chosen = which(model, revision)
    with showing_downloads(console) as progress:
        return models.download(repo, chosen or names.DEFAULT_REVISION, force=force, offline=offline, progress=progress)


def which(model: str, revision: str | None) -> tuple[str, str | None]:
    """The repository, and the revision if it was given as part of the model's name or as an option."""
    from gpt2cli.hub import names

    repo, named = names.parse_name(model)
    if revision is None:
        return repo, named if "@" in model else None
    if "@" in model and named != revision:
        raise UsageError(f"{model} and --revision {revision} are two revisions: give one")
    return repo, names.check_revision(revision)


def show_models(console: Console, json: bool) -> None:
    from gpt2cli.hub import model_cache

    models = model_cache.list_models()
    if json:
        for model in models:
            console.json(cached_model_as_json(model))
    elif models:
        print_table(models)
    else:
        console.note("no models on disk yet: `gpt2 download-weights` fetches one")


def print_table(models: "list[CachedModel]") -> None:
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("model")
    table.add_column("revision")
    table.add_column("size", justify="right")
    table.add_column("downloaded (UTC)")
    table.add_column("path")
    for model in models:
        when = model.downloaded_at[:16].replace("T", " ")
        cells = (model.model, model.revision, decimal(model.bytes), when, str(model.path))
        table.add_row(*(Text(visible_line(cell)) for cell in cells))
    # wider than any terminal, so that no path is folded: people copy paths
    terminal(current().stdout, width=10_000).print(table)


def remove_model(console: Console, name: str, revision: str | None, json: bool) -> None:
    from rich.filesize import decimal

    from gpt2cli.hub import model_cache

    repo, chosen = which(name, revision)
    removed = model_cache.remove(repo, chosen, lambda: console.note(f"another process is using {name}: waiting for it"))
    for model in removed:
        if json:
            console.json(cached_model_as_json(model))
    console.note(f"removed {name}, {decimal(sum(model.bytes for model in removed))}")


def cached_model_as_json(model: "CachedModel") -> dict[str, Any]:
    """The fields of `CachedModel`, the path as text."""
    return asdict(model) | {"path": str(model.path)}
