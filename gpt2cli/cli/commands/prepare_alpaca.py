"""`gpt2 prepare-alpaca`: tokenize instructions once, for all later runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from gpt2cli.cli import options
from gpt2cli.cli.terminal import Console
from gpt2cli.config import DataConfig, GPTConfig, TrainConfig
from gpt2cli.errors import UsageError
from gpt2cli.outputs import check_directory
from gpt2cli.prompts import PromptTemplate, read_template

if TYPE_CHECKING:
    from gpt2cli.data.splits import Splits

EXAMPLES = """
[bold]Examples[/bold]

gpt2 prepare-alpaca

gpt2 prepare-alpaca --subset 5000 --max-length 512 --out alpaca-5k

gpt2 prepare-alpaca --source records.jsonl --skip-bad --force

gpt2 prepare-alpaca --source https://example.org/records.json --loss-on all
"""
DATA, TRAIN = DataConfig(), TrainConfig()
WINDOW = GPTConfig().block_size
RECORDS_PANEL, SPLIT_PANEL = "Records", "Splits"


def register(app: typer.Typer) -> None:
    app.command("prepare-alpaca", epilog=EXAMPLES)(prepare_alpaca)


def prepare_alpaca(
    source: Annotated[
        str,
        typer.Option(
            "--source",
            metavar="cleaned|original|FILE|URL",
            help="The corrected Alpaca data, the original, or a .json or .jsonl file of the same form.",
            rich_help_panel=RECORDS_PANEL,
        ),
    ] = "cleaned",
    subset: Annotated[
        int | None,
        typer.Option(
            "--subset",
            help="Use only this many records, chosen at random.",
            show_default="all",
            rich_help_panel=RECORDS_PANEL,
        ),
    ] = DATA.subset,
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length",
            help="Maximum number of tokens of a record. Longer records are cut.",
            show_default=str(WINDOW),
            rich_help_panel=RECORDS_PANEL,
        ),
    ] = TRAIN.max_length,
    loss_on: Annotated[
        str,
        typer.Option(
            "--loss-on",
            metavar="response|all",
            help="Tokens that count in the loss: those of the responses, or all.",
            rich_help_panel=RECORDS_PANEL,
        ),
    ] = TRAIN.loss_on,
    template: Annotated[
        str,
        typer.Option(
            "--template",
            metavar=options.TEMPLATE,
            help="Prompt template, as for `gpt2 chat`. It is stored in the checkpoint.",
            rich_help_panel=RECORDS_PANEL,
        ),
    ] = "alpaca",
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad", help="Skip malformed records, and report their number.", rich_help_panel=RECORDS_PANEL
        ),
    ] = False,
    val_fraction: Annotated[
        float,
        typer.Option("--val-fraction", help="Fraction of records for validation.", rich_help_panel=SPLIT_PANEL),
    ] = DATA.val_fraction,
    test_fraction: Annotated[
        float,
        typer.Option("--test-fraction", help="Fraction of records for testing.", rich_help_panel=SPLIT_PANEL),
    ] = DATA.test_fraction,
    seed: Annotated[
        int,
        typer.Option("--seed", help="Random seed of the subset and the splits.", rich_help_panel=SPLIT_PANEL),
    ] = DATA.seed,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Directory for the dataset.",
            show_default="datasets/alpaca-cleaned in the data directory",
            rich_help_panel=options.OUTPUT_PANEL,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing dataset.", rich_help_panel=options.OUTPUT_PANEL)
    ] = False,
    json: options.Json = False,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Tokenize Alpaca's instructions, divide them into splits, and show a summary."""
    with options.named_as_typed("gpt2 prepare-alpaca"):
        data = DataConfig(val_fraction, test_fraction, subset, seed)
        train = TrainConfig(max_length=max_length, loss_on=cast(Literal["response", "all"], loss_on))
    console = Console(quiet)

    from gpt2cli.data.prepared import default_directory, write_prepared

    wording = read_template(template)
    directory = default_directory(source) if out is None else out
    check_free(directory, force)
    splits = read(console, source, train, data, skip_bad, offline, wording)
    for note in splits.notes:
        console.note(note)
    write_prepared(splits, directory)
    if json:
        console.json(dataset_as_json(splits, directory))
    else:
        from gpt2cli.cli.views.dataset import show_summary

        show_summary(splits, directory)


def check_free(directory: Path, force: bool) -> None:
    """Raise UsageError if the directory holds a dataset, or is a file; ResourceError if it cannot be written."""
    from gpt2cli.data.prepared import is_prepared

    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file: give --out a directory")
    if is_prepared(directory) and not force:
        raise UsageError(f"{directory} holds a dataset already: use --force to replace it, or another --out")
    check_directory(directory)


def read(
    console: Console,
    source: str,
    train: TrainConfig,
    data: DataConfig,
    skip_bad: bool,
    offline: bool,
    template: PromptTemplate,
) -> "Splits":
    """Download the records if they are not on disk, and tokenize them."""
    from gpt2cli.cli.views.downloads import showing_downloads
    from gpt2cli.data.open_data import load_alpaca
    from gpt2cli.data.source import fetch_source
    from gpt2cli.hub.addresses import without_query

    with showing_downloads(console) as progress:
        path = fetch_source(source, offline=offline, progress=progress)
    with showing_tokenization(console) as tick:
        max_length = train.max_length or WINDOW
        return load_alpaca(
            path,
            max_length,
            train.loss_on,
            data,
            skip_bad=skip_bad,
            on_batch=tick,
            source=without_query(source),
            template=template,
        )


@contextmanager
def showing_tokenization(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal, and delete it at the end. Elsewhere, show nothing."""
    from rich.progress import MofNCompleteColumn, TextColumn

    from gpt2cli.cli.views.progress import ProgressBars

    with ProgressBars(console, [MofNCompleteColumn(), TextColumn("records")]) as bars:
        bars.update("tokenizing", 0, None)
        yield lambda done, total: bars.update("tokenizing", done, total)


def dataset_as_json(splits: "Splits", directory: Path) -> dict[str, Any]:
    """The directory of the dataset, `Splits.info`, and the size of each split."""
    parts = {
        name: {"records": len(part), "tokens": part.n_tokens, "targets": part.n_targets}
        for name, part in splits.by_name().items()
    }
    return {"out": str(directory), **splits.info, "splits": parts}
