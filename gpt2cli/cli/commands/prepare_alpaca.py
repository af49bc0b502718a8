"""`gpt2 prepare-alpaca`: tokenize instructions or conversations once, for all later runs."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from gpt2cli.cli import options
from gpt2cli.cli.config_options import option
from gpt2cli.cli.terminal import Console
from gpt2cli.cli.views.spinner import working
from gpt2cli.config import DataConfig, GPTConfig, TrainConfig
from gpt2cli.data.columns import parse_columns
from gpt2cli.errors import UsageError
from gpt2cli.hub.names import DATASET_FORM
from gpt2cli.outputs import check_directory
from gpt2cli.prompts import read_template

if TYPE_CHECKING:
    from gpt2cli.data.splits import Splits

EXAMPLES = """
gpt2 prepare-alpaca --subset 5000 --out alpaca-5k  # 5,000 of Alpaca's instructions
gpt2 prepare-alpaca --source records.jsonl --skip-bad --force  # your own, without the malformed ones
gpt2 prepare-alpaca --source chats.json --max-length 512  # conversations, in OpenAI's or ShareGPT's format
gpt2 prepare-alpaca --source quiz.csv --columns instruction=task,output=solution  # a table with these column names
gpt2 prepare-alpaca --source https://example.org/records.json --loss-on all  # from the web
gpt2 finetune --data alpaca-5k  # train on the result
"""
DATA, TRAIN = DataConfig(), TrainConfig()
WINDOW = GPTConfig().block_size
of_records, of_splits = (partial(typer.Option, rich_help_panel=panel) for panel in ("Records", "Splits"))


def register(app: typer.Typer) -> None:
    app.command("prepare-alpaca", epilog=EXAMPLES)(prepare_alpaca)


def prepare_alpaca(
    source: Annotated[
        str,
        of_records(
            "--source",
            metavar="cleaned|original|FILE",
            help="The corrected Alpaca data, the original, or your own instructions or conversations (.csv, .tsv, "
            f".json, .jsonl, each also as .gz): a file, {DATASET_FORM} on the Hub, or an https address.",
        ),
    ] = "cleaned",
    columns: Annotated[str | None, options.columns("Records")] = None,
    subset: Annotated[int | None, option("Records", DataConfig, "subset")] = DATA.subset,
    max_length: Annotated[
        int | None,
        of_records(
            "--max-length",
            help="The largest number of tokens in a record. Longer records are cut.",
            show_default=str(WINDOW),
        ),
    ] = TRAIN.max_length,
    loss_on: Annotated[str, option("Records", TrainConfig, "loss_on")] = TRAIN.loss_on,
    template: Annotated[
        str,
        of_records(
            "--template",
            metavar=options.TEMPLATE,
            help="The prompt template for instructions, as for `gpt2 chat`. The checkpoint contains it.",
        ),
    ] = "alpaca",
    skip_bad: Annotated[bool, of_records("--skip-bad", help="Skip malformed records and report their number.")] = False,
    val_fraction: Annotated[float, option("Splits", DataConfig, "val_fraction")] = DATA.val_fraction,
    test_fraction: Annotated[
        float,
        of_splits("--test-fraction", metavar="FRACTION", help="The fraction of the records that is used for testing."),
    ] = DATA.test_fraction,
    seed: Annotated[int, of_splits("--seed", help="The random seed of the subset and the splits.")] = DATA.seed,
    out: Annotated[
        Path | None,
        options.of_output(
            "--out",
            metavar="DIR",
            help="The directory for the dataset.",
            show_default="datasets/alpaca-cleaned in the data directory",
        ),
    ] = None,
    force: Annotated[bool, options.of_output("--force", help="Replace an existing dataset.")] = False,
    json: options.Json = False,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Tokenize instructions or conversations for many runs. These are Alpaca's, or your own in any format that
    `gpt2 finetune` reads. They are divided into splits.
    """
    with options.named_as_typed("gpt2 prepare-alpaca"):
        data = DataConfig(val_fraction, test_fraction, subset, seed)
        train = TrainConfig(max_length=max_length, loss_on=cast(Literal["response", "all"], loss_on))
    console = Console(quiet)
    from gpt2cli.data.kinds import default_directory
    from gpt2cli.data.source import check_source, fetch_source

    wording, asked = read_template(template), None if columns is None else parse_columns(columns)
    check_source(source)
    directory = default_directory(source) if out is None else out
    check_free(directory, force)

    with working(console, "starting"):
        from rich.progress import MofNCompleteColumn, TextColumn

        from gpt2cli.cli.views.downloads import showing_downloads
        from gpt2cli.cli.views.progress import ProgressBars
        from gpt2cli.data.open_data import load_records
        from gpt2cli.data.prepared import write_prepared
        from gpt2cli.hub.addresses import without_query

    with showing_downloads(console) as progress:
        path = fetch_source(source, offline=offline, progress=progress, columns=asked)
    with ProgressBars(console, [MofNCompleteColumn(), TextColumn("records")]) as bars:
        bars.update("tokenizing", 0, None)
        on_batch = partial(bars.update, "tokenizing")
        length = train.max_length or WINDOW
        name = without_query(source)
        splits = load_records(
            path, length, train.loss_on, data, skip_bad, on_batch, source=name, template=wording, columns=asked
        )
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
    from gpt2cli.data.kinds import is_prepared

    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file: give --out a directory")
    if is_prepared(directory) and not force:
        raise UsageError(f"{directory} holds a dataset already: use --force to replace it, or choose another --out")
    check_directory(directory)


def dataset_as_json(splits: "Splits", directory: Path) -> dict[str, Any]:
    """The directory of the dataset, `Splits.info`, and the size of each split."""
    parts = {
        name: {"records": len(part), "tokens": part.n_tokens, "targets": part.n_targets}
        for name, part in splits.by_name().items()
    }
    return {"out": str(directory), **splits.info, "splits": parts}
