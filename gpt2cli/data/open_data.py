"""Training data of any kind, opened, tokenized and divided."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from gpt2cli.config import DataConfig, GPTConfig, TrainConfig
from gpt2cli.data.kinds import check_kind, default_directory, is_prepared
from gpt2cli.data.prepared import fingerprint, read_prepared, write_prepared
from gpt2cli.data.records import read_records
from gpt2cli.data.source import fetch_source
from gpt2cli.data.splits import Splits, sample, split
from gpt2cli.data.text import left_out_of, read_text, read_text_of
from gpt2cli.data.text_records import is_plain_text, read_text_records
from gpt2cli.data.tokenized_records import OnBatch, tokenize_records
from gpt2cli.data.values import is_data_file
from gpt2cli.errors import DataError, UsageError
from gpt2cli.progress import Progress, ignore
from gpt2cli.prompts import ALPACA, PromptTemplate


def prepared_alpaca(offline: bool = False, progress: Progress = ignore) -> Path:
    """The path of Alpaca's prepared data, the default. It is downloaded and prepared if it is not there yet."""
    prepared = default_directory("cleaned")
    if not is_prepared(prepared):
        file = fetch_source("cleaned", offline, progress)
        # with the default settings, whatever those of this run are: later runs use it too
        splits = load_records(file, GPTConfig.block_size, TrainConfig.loss_on, DataConfig(), source="cleaned")
        write_prepared(splits, prepared)
    return prepared


def load_data(
    path: Path,
    train: TrainConfig,
    data: DataConfig,
    block_size: int,
    skip_bad: bool = False,
    on_batch: OnBatch | None = None,
    template: PromptTemplate = ALPACA,
    columns: Mapping[str, str] | None = None,
    source: str | None = None,
) -> Splits:
    """Data of any kind for a model with this window, divided into train, val and test. `info` calls it `source`.

    Records are put into the `template`; `columns` is as for `read_records`. A directory of `prepare-alpaca` keeps its
    own division, lengths, `loss_on` and template; then only `subset` of the two configs has an effect, on `train`.
    `info` always has kind, source, max_length, loss_on, seed and fingerprint, and for records their counts and columns.
    `notes` say how the data was read, and which parts of it are not used.

    Raises UsageError for a path that is not data, or a max_length beyond the window, and DataError for data that is
    damaged, malformed, empty, or prepared for a longer window.
    """
    max_length = train.max_length or block_size
    if max_length > block_size:
        raise UsageError(f"--max-length {max_length} is more than the model's window of {block_size} tokens: lower it")
    check_kind(path)
    is_file_of_records = is_data_file(path) and not path.is_dir()
    if is_file_of_records and is_plain_text(path, columns):
        read = read_text_records(path, skip_bad, columns)
        return _text(read_text_of(read, max_length, data), source or str(path), max_length, data, read.notes)
    if is_file_of_records:
        splits = load_records(path, max_length, train.loss_on, data, skip_bad, on_batch, source, template, columns)
        return replace(splits, records={})  # training needs their tokens only
    refuse_columns(path, columns)
    if path.is_dir():
        return _load_directory(path, max_length, data)
    return _text(read_text(path, max_length, data), source or str(path), max_length, data)


def refuse_columns(path: Path, columns: Mapping[str, str] | None) -> None:
    """Raise UsageError for `columns` of data that is no file of records."""
    if columns:
        what = "prepared data has its columns already" if is_prepared(path) else "plain text has no columns"
        raise UsageError(f"--columns is for files of records, and {what}: leave it out")


def load_records(
    path: Path,
    max_length: int,
    loss_on: Literal["response", "all"],
    data: DataConfig,
    skip_bad: bool = False,
    on_batch: OnBatch | None = None,
    source: str | None = None,
    template: PromptTemplate = ALPACA,
    columns: Mapping[str, str] | None = None,
) -> Splits:
    """A file of records, tokenized and divided, with the records. `info` calls it `source`.

    The template is as in `TokenizedRecords`. Raises the errors of `read_records` and `tokenize_records`.
    """
    found = read_records(path, skip_bad, columns)
    read = tokenize_records(found, path, max_length, loss_on, data, on_batch, template)
    chosen = split(len(read.dataset), data)
    train, val, test = (read.dataset.select(indices) for indices in chosen.values())
    records = {name: [read.records[i] for i in indices] for name, indices in chosen.items()}
    info = {"kind": "alpaca", "source": source or str(path), "max_length": max_length, "loss_on": loss_on}
    info |= {"seed": data.seed, "subset": data.subset, "counts": asdict(read.counts)}
    info |= {"columns": read.columns.as_dict(), "turns": read.turns}
    return _described(Splits(train, val, test, read.template, info, read.notes, records))


def _text(read: Splits, source: str, block_size: int, data: DataConfig, notes: tuple[str, ...] = ()) -> Splits:
    """Plain text with the facts about it."""
    info = {"kind": "text", "source": source, "max_length": block_size, "loss_on": "all", "seed": data.seed}
    return _described(replace(read, info=info | {"subset": data.subset, **read.info}, notes=(*notes, *read.notes)))


def _load_directory(path: Path, max_length: int, data: DataConfig) -> Splits:
    if not is_prepared(path):
        return _text(read_text(path, max_length, data), str(path), max_length, data, left_out_of(path))
    prepared = read_prepared(path)
    longest = max(int(part.lengths.max()) for part in prepared.by_name().values() if len(part))
    if longest - 1 > max_length:  # the last token is predicted, not read
        fit = f"prepare it again with --max-length {max_length}"
        raise DataError(f"{path} was prepared with up to {longest} tokens a record, more than {max_length}: {fit}")
    if data.subset is None:
        return prepared
    chosen = prepared.train.select(sample(len(prepared.train), data.subset, data.seed))
    return _described(replace(prepared, train=chosen, info=prepared.info | {"subset": data.subset}))


def _described(splits: Splits) -> Splits:
    """The splits with their fingerprint in `info`."""
    return replace(splits, info=splits.info | {"fingerprint": fingerprint(splits)})
