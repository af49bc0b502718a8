"""`gpt2 download-weights`: download models, list those on disk, delete them."""

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt2cli.cli import options
from gpt2cli.cli.environment import current
from gpt2cli.cli.terminal import Console, terminal, visible_line
from gpt2cli.errors import UsageError
from gpt2cli.published import DEFAULT_MODEL, PUBLISHED, TINY

if TYPE_CHECKING:
    from gpt2cli.hub.model_cache import CachedModel

EXAMPLES = """
gpt2 download-weights  # gpt2, the default model (548 MB)
gpt2 download-weights gpt2-medium  # a larger one, for later use without a network
gpt2 download-weights distilbert/distilgpt2 --revision main --force  # again, from the Hub
gpt2 download-weights --list  # the models on disk
gpt2 download-weights --remove gpt2-medium  # delete one
gpt2 download-weights --remove packed  # delete all packed weights, which are made again when needed
"""
of_disk = partial(typer.Option, rich_help_panel="On disk")


def register(app: typer.Typer) -> None:
    app.command("download-weights", epilog=EXAMPLES)(download_weights)


def complete_cached(incomplete: str) -> list[str]:
    """Names of the models on disk, for the shell's completion."""
    from gpt2cli.hub import model_cache, names

    models = model_cache.list_models()
    return [*(model.model + names.suffix_of(model.revision) for model in models), model_cache.PACKED]


def download_weights(
    model: Annotated[
        str | None,
        typer.Argument(
            help=f"One of {', '.join(PUBLISHED)}, or a Hub repository `owner/name[@revision]`.",
            show_default=DEFAULT_MODEL,
            autocompletion=lambda: list(PUBLISHED),
        ),
    ] = None,
    revision: Annotated[
        str | None, options.of_model("--revision", metavar="NAME", help="A branch, tag or commit.", show_default="main")
    ] = None,
    force: Annotated[bool, options.of_model("--force", help="Download the model again if it is on disk.")] = False,
    list_models: Annotated[bool, of_disk("--list", help="Show the models on disk.")] = False,
    remove: Annotated[
        str | None,
        of_disk("--remove", metavar="MODEL", help="Delete a model from disk.", autocompletion=complete_cached),
    ] = None,
    json: options.Json = False,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Download a model, or list and delete those on disk. A download is checked, and its directory printed."""
    if sum((model is not None or force, list_models, remove is not None)) > 1 or (list_models and revision):
        raise UsageError("a download (MODEL, --force), --list and --remove exclude each other: use one at a time")
    console = Console(quiet)
    if list_models:
        show_models(console, json)
    elif remove is not None:
        remove_model(console, remove, revision, json)
    else:
        from gpt2cli.cli.views.downloads import showing_downloads
        from gpt2cli.cli.views.spinner import working
        from gpt2cli.hub import models, names

        repo, chosen = which(DEFAULT_MODEL if model is None else model, revision)
        chosen = chosen or names.DEFAULT_REVISION
        with working(console, "checking the files"), showing_downloads(console) as progress:
            found = models.download(repo, chosen, force=force, offline=offline, progress=progress)
        if json:
            console.json(cached_model_as_json(found))
        else:
            console.write(f"{found.path}\n")


def which(model: str, revision: str | None) -> tuple[str, str | None]:
    """The repository and the revision, from the name or from --revision; None if neither gives a revision."""
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
    tell_packed(console)
    if not models:
        console.note("no models are on disk: `gpt2 download-weights` fetches gpt2; tiny comes with gpt2cli")
    elif json:
        for model in models:
            console.json(cached_model_as_json(model))
    else:
        print_table(models)


def tell_packed(console: Console) -> None:
    """One line about the packed weights that are in no downloaded model's directory, if there are any."""
    from rich.filesize import decimal

    from gpt2cli import paths
    from gpt2cli.checkpoints.packed_directory import kept_bytes
    from gpt2cli.hub.model_cache import PACKED

    count, size = kept_bytes(paths.packed())
    if count:
        where = f"packed weights of checkpoints and other directories: {decimal(size)} in {paths.packed()}"
        console.note(f"{where}; `gpt2 download-weights --remove {PACKED}` deletes all packed weights")


def print_table(models: "list[CachedModel]") -> None:
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("model", "revision", "size", "packed", "downloaded (UTC)", "path"):
        table.add_column(title, justify="right" if title in ("size", "packed") else "left")
    for model in models:
        when = model.downloaded_at[:16].replace("T", " ")
        sizes = decimal(model.bytes), decimal(model.packed_bytes)
        cells = (model.model, model.revision, *sizes, when, str(model.path))
        table.add_row(*(Text(visible_line(cell)) for cell in cells))
    # wider than any terminal, so that no path is folded: people copy paths
    terminal(current().stdout, width=10_000).print(table)


def remove_model(console: Console, name: str, revision: str | None, json: bool) -> None:
    from rich.filesize import decimal

    from gpt2cli.hub import model_cache

    if name == TINY:
        raise UsageError("tiny is a part of gpt2cli and cannot be removed: --list shows the models that can")
    if name == model_cache.PACKED:
        remove_all_packed(console, revision)
        return
    repo, chosen = which(name, revision)
    removed = model_cache.remove(repo, chosen, lambda: console.note(f"another process is using {name}: waiting for it"))
    for model in removed:
        if json:
            console.json(cached_model_as_json(model))
    console.note(f"removed {name}, {decimal(sum(model.bytes + model.packed_bytes for model in removed))}")


def remove_all_packed(console: Console, revision: str | None) -> None:
    from rich.filesize import decimal

    from gpt2cli.checkpoints.packed_directory import remove_packed

    if revision is not None:
        raise UsageError("packed weights have no revision: leave --revision out")
    console.note(f"removed all packed weights, {decimal(remove_packed())}: they are made again when needed")


def cached_model_as_json(model: "CachedModel") -> dict[str, Any]:
    """The fields of `CachedModel`, the path as text."""
    return asdict(model) | {"path": str(model.path)}
