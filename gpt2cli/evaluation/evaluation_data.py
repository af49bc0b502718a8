"""The data that models are evaluated on: instructions, with reference answers or without, or plain texts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from gpt2cli.config import DataConfig, TrainConfig
from gpt2cli.counted import counted
from gpt2cli.data.dataset import TokenDataset
from gpt2cli.data.encoding import encode_many
from gpt2cli.data.kinds import ACCEPTED, check_kind, is_prepared, text_files
from gpt2cli.data.open_data import load_records, refuse_columns
from gpt2cli.data.prepared import AGAIN, read_prepared
from gpt2cli.data.records import Record, read_records
from gpt2cli.data.splits import Splits
from gpt2cli.data.text import left_out_of, read_documents, tokenize
from gpt2cli.data.text_records import is_plain_text, read_text_records
from gpt2cli.data.utf8 import read_utf8
from gpt2cli.data.values import is_data_file
from gpt2cli.errors import DataError, UsageError
from gpt2cli.evaluation.layout import lay_out
from gpt2cli.evaluation.text_sizes import sizes_of
from gpt2cli.prompts import ALPACA, PromptTemplate
from gpt2cli.tokenizer import END_OF_TEXT_ID

Split = Literal["test", "val", "train", "all"]


@dataclass(frozen=True)
class Task:
    """A record, and the tokens of its response. They end with the end of text, unless the response was cut.

    Of a conversation, the response is that of the last exchange. Without a reference, the record's output and the
    response are empty.
    """

    record: Record
    response: list[int]


@dataclass(frozen=True)
class Instructions:
    """Records to be answered.

    has_references  whether the records have outputs to compare with; if not, the models only answer them
    fingerprint     the fingerprint of the whole data, if these are a split of it
    places          the index of each task among all records of a file; None for prepared data
    of              the number of all records of that file, also those without an output
    notes           remarks for the person who gave the data
    """

    source: str
    split: Split
    tasks: list[Task]
    has_references: bool = True
    fingerprint: str | None = None
    places: list[int] | None = None
    of: int = 0
    notes: tuple[str, ...] = ()

    @property
    def noun(self) -> str:
        """The word for one of the tasks."""
        if any(task.record.earlier for task in self.tasks):
            return "conversation"
        return "record" if self.has_references else "question"

    def without_references(self) -> "Instructions":
        """The same instructions, without the outputs of their records."""
        tasks = [Task(replace(task.record, output=""), []) for task in self.tasks]
        return replace(self, tasks=tasks, has_references=False)


@dataclass(frozen=True, eq=False)
class Texts:
    """Plain texts, each with the name of its file; in a folder, with the file's path in it. A file may hold several.

    tokens  for each text, (T,) uint16 with T of 1 or more
    sizes   for each text, (T, 2) uint8: the UTF-8 bytes of each token, and the number of words that begin in it
    notes   remarks for the person who gave the data
    """

    source: str
    names: list[str]
    tokens: list[Tensor]
    sizes: list[Tensor]
    notes: tuple[str, ...] = ()


def read_data(
    path: Path,
    source: str,
    split: Split | None,
    block_size: int,
    train: TrainConfig,
    division: DataConfig,
    template: PromptTemplate = ALPACA,
    skip_bad: bool = False,
    columns: Mapping[str, str] | None = None,
    questions: bool = False,
) -> Instructions | Texts:
    """Read the data at `path`. Messages call it `source`.

    Of prepared data, the test split is the default. A file of records is taken whole by default; for another split it
    is divided as `gpt2 finetune` divides it with these settings, this window and this template. Plain text is always
    taken whole. With `skip_bad` malformed records are left out. `columns` is as for `read_records`.

    With `questions` there are no references: the outputs of records are not used, and each line of a text file is an
    instruction. Records of which none has an output are always read so.

    Raises UsageError for a path that is not data, and DataError for data that is damaged, or that holds nothing to
    evaluate on.
    """
    check_kind(path)
    if path.is_dir() and is_prepared(path):
        refuse_columns(path, columns)
        splits = read_prepared(path, with_records=True)
    elif path.is_dir() or not is_data_file(path):
        refuse_columns(path, columns)
        _refuse_split(source, split)
        return _read_lines(path, source) if questions else _read_texts(path, source)
    elif is_plain_text(path, columns):
        _refuse_split(source, split)
        if questions:
            raise UsageError(f"{source} holds plain text, not questions: add --columns instruction=COLUMN")
        return _read_text_records(path, source, skip_bad, columns)
    elif split in (None, "all"):
        return _read_file(path, source, skip_bad, columns, questions)
    else:
        length = train.max_length or block_size
        splits = load_records(path, length, train.loss_on, division, skip_bad, template=template, columns=columns)
    found = _of_splits(splits, source, split or "test")
    return found.without_references() if questions else found


def _refuse_split(source: str, split: Split | None) -> None:
    """Raise UsageError for a split of plain text."""
    if split not in (None, "all"):
        raise UsageError(f"{source} has no splits, as it holds no records: leave --split out")


def _read_lines(path: Path, source: str) -> Instructions:
    """The lines of a text file as instructions, without the blank ones."""
    if path.is_dir():
        raise UsageError(f"{source} is a folder: for --questions give one .txt file, with one question a line")
    text = read_utf8(path).replace("\r\n", "\n").replace("\r", "\n")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise DataError(f"{source} has no questions: write one on each line")
    return Instructions(source, "all", [Task(Record(line, "", ""), []) for line in lines], has_references=False)


def _read_texts(path: Path, source: str) -> Texts:
    read = [(name, document) for name, file in text_files(path).items() for document in read_documents(file)]
    if not read:
        raise DataError(f"{source}: there is no text to evaluate on: give another file")
    as_questions = f"{source} is taken as plain text. If each line is a question, use --questions"
    notes = left_out_of(path) if path.is_dir() else (as_questions,)
    return _texts(source, [name for name, _ in read], [document for _, document in read], notes)


def _read_text_records(path: Path, source: str, skip_bad: bool, columns: Mapping[str, str] | None) -> Texts:
    read = read_text_records(path, skip_bad, columns)
    return _texts(source, [path.name] * len(read.texts), read.texts, read.notes)


def _texts(source: str, names: list[str], documents: list[str], notes: tuple[str, ...]) -> Texts:
    tokens = tokenize(documents)
    sizes = [sizes_of(*pair) for pair in zip(documents, tokens, strict=True)]
    return Texts(source, names, tokens, sizes, notes)


def _read_file(
    path: Path, source: str, skip_bad: bool, columns: Mapping[str, str] | None, questions: bool
) -> Instructions:
    read = read_records(path, skip_bad, columns, output="unused" if questions else "optional")
    places = [i for i, record in enumerate(read.good) if record.output.strip()]
    notes = [*read.notes]
    if read.bad:
        notes.append(f"{source}: skipped {counted(read.bad, 'malformed record')}")
    if questions or not places:
        if not questions:
            notes.append(f"{source}: no record has an output, so the answers are shown without scores")
        tasks = [Task(replace(record, output=""), []) for record in read.good]
        return Instructions(source, "all", tasks, has_references=False, notes=tuple(notes))
    if without := len(read.good) - len(places):
        left_out = f"{source}: left out {without:,} of {len(read.good):,} records, which have no output"
        notes.append(f"{left_out}. With --questions all are answered, without scores")
    elif read.unanswered:
        notes.append("--questions answers the last question of each conversation, without scores")
    records = [read.good[i] for i in places]
    responses = encode_many([record.output for record in records])
    tasks = [Task(record, [*ids, END_OF_TEXT_ID]) for record, ids in zip(records, responses, strict=True)]
    return Instructions(source, "all", tasks, places=places, of=len(read.good), notes=tuple(notes))


def _of_splits(splits: Splits, source: str, split: Split) -> Instructions:
    if splits.template is None:
        raise DataError(f"{source} was prepared without a prompt template: {ACCEPTED}")
    parts = splits.by_name()
    chosen = list(parts) if split == "all" else [split]
    if not any(len(parts[name]) for name in chosen):
        held = " or ".join(f"{name} ({counted(len(part), 'record')})" for name, part in parts.items() if len(part))
        raise DataError(f"the {split} split of {source} is empty: choose --split {held}, or all")
    if not splits.records:
        raise DataError(f"{source} was prepared by an earlier version of gpt2cli, without the records' texts: {AGAIN}")
    tasks = [task for name in chosen for task in _tasks(parts[name], splits.records[name], splits.template)]
    return Instructions(source, split, tasks, fingerprint=splits.info.get("fingerprint"), notes=splits.notes)


def _tasks(data: TokenDataset, records: list[Record], template: PromptTemplate) -> list[Task]:
    """Each record, with the tokens of its sequence that follow the last prompt."""
    longest = int(data.lengths.max()) if len(data) else 0
    turns = lay_out(records, [[] for _ in records], template, longest)
    before = [sum(map(len, [part for turn in each for part in turn])) for each in turns]
    responses = [data[i][0][n:].tolist() for i, n in enumerate(before)]
    if not all(turns) or not all(responses):
        raise DataError(f"the prepared records do not follow their own template: {AGAIN}")
    return [Task(record, response) for record, response in zip(records, responses, strict=True)]
