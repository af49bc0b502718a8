"""Records as token sequences: prompt, answer, end of text; of a conversation, all its exchanges in turn.

A conversation is tokenized as `exchanges.prompt_ids` does: each exchange as if it was the only one.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from gpt2cli.config import DataConfig
from gpt2cli.counted import counted
from gpt2cli.data.columns import Columns
from gpt2cli.data.dataset import TokenDataset
from gpt2cli.data.encoding import batches
from gpt2cli.data.records import Record, Records
from gpt2cli.data.splits import sample
from gpt2cli.data.turns import Turn, encode_turns, joined, last_turns
from gpt2cli.errors import DataError
from gpt2cli.prompts import ALPACA, PromptTemplate
from gpt2cli.tokenizer import decode

OnBatch = Callable[[int, int], None]
"""A function that is called after each batch with the number of tokenized records, and of all records."""


@dataclass(frozen=True)
class Counts:
    """Numbers of a file's records. `records` is the sum of the bad, dropped, left out and kept ones.

    bad            malformed, and skipped as requested
    dropped_empty  without an answer
    left_out       not in the requested subset
    dropped_long   with a last prompt that leaves no room for an answer
    truncated      kept, but with the last answer cut to the maximal length
    kept           stored as sequences. These hold `tokens` tokens, of which `targets` are targets.
    turns          exchanges in the sequences
    shortened      conversations kept without their first exchanges, to fit the maximal length
    unanswered     conversations that end with a question, which is left out
    """

    records: int
    bad: int
    dropped_empty: int
    left_out: int
    dropped_long: int
    truncated: int
    kept: int
    tokens: int
    targets: int
    turns: int = 0
    shortened: int = 0
    unanswered: int = 0


@dataclass(frozen=True, eq=False)
class TokenizedRecords:
    """A file of records, tokenized, in the order of the file.

    records   the record of each sequence: shortened and cut as its tokens are, and a blank input is empty
    template  the prompt template, with the system text that all records have, if they share one
    columns   the columns of the file that were taken
    notes     remarks on how the file was read, and on its unused parts
    """

    dataset: TokenDataset
    records: list[Record]
    counts: Counts
    template: PromptTemplate
    columns: Columns
    notes: tuple[str, ...] = ()

    @property
    def turns(self) -> int:
        """The most exchanges in a sequence."""
        return max(len(record.exchanges) for record in self.records)


def tokenize_records(
    read: Records,
    path: Path,
    max_length: int,
    loss_on: Literal["response", "all"],
    data: DataConfig,
    on_batch: OnBatch | None = None,
    template: PromptTemplate = ALPACA,
) -> TokenizedRecords:
    """Tokenize the records of the file at `path`. See `Counts` for records that are dropped.

    A record's system text replaces the preamble of the `template`. It is left out if the template has none. A `subset`
    is chosen at random, with the seed of `data`, from the records that have an answer. Raises DataError if no record is
    left.
    """
    answered = [record for record in read.good if record.output.strip()]
    chosen = answered if data.subset is None else [answered[i] for i in sample(len(answered), data.subset, data.seed)]
    tokenized = _Sequences(template, max_length, loss_on)
    done = 0
    for batch in batches(chosen, _characters):
        tokenized.add(batch)
        done += len(batch)
        if on_batch:
            on_batch(done, len(chosen))
    if not tokenized.records:
        empty, long = counted(len(read.good) - len(answered), "record"), counted(tokenized.dropped_long, "record")
        why = f"{empty} without an output, {long} whose last prompt alone fills the {max_length:,} tokens"
        raise DataError(f"{path}: no record is left ({why}): give other data, or a larger --max-length")
    dataset = tokenized.dataset()
    counts = Counts(
        records=len(read.good) + read.bad,
        bad=read.bad,
        dropped_empty=len(read.good) - len(answered),
        left_out=len(answered) - len(chosen),
        dropped_long=tokenized.dropped_long,
        truncated=tokenized.truncated,
        kept=len(dataset),
        tokens=dataset.n_tokens,
        targets=dataset.n_targets,
        turns=sum(len(record.exchanges) for record in tokenized.records),
        shortened=tokenized.shortened,
        unanswered=read.unanswered,
    )
    shared = _with_shared_system(template, read.good)
    notes = (*read.notes, *tokenized.notes())
    return TokenizedRecords(dataset, tokenized.records, counts, shared, read.columns, notes)


def _with_shared_system(template: PromptTemplate, records: Iterable[Record]) -> PromptTemplate:
    """The template with the system text that all records have, if they share one and the template has a place."""
    systems = {record.system.strip() for record in records}
    shared = systems.pop() if len(systems) == 1 else ""
    return template.with_system(shared) if shared and template.has_place_for_system else template


def _characters(record: Record) -> int:
    """The number of characters of a record's texts. Each prompt of a conversation repeats its system text."""
    texts = ((record.system, each.instruction, each.input, each.output) for each in record.exchanges)
    return sum(len(text) for of_exchange in texts for text in of_exchange)


class _Sequences:
    """Token sequences that grow, three bytes a token, and the records in them."""

    def __init__(self, template: PromptTemplate, max_length: int, loss_on: Literal["response", "all"]) -> None:
        self._template, self._max_length, self._learns_prompts = template, max_length, loss_on == "all"
        self._tokens = array("H")
        self._offsets = array("q", [0])
        self._is_target = bytearray()
        self.records: list[Record] = []
        self.truncated = self.shortened = self.dropped_long = self._without_place = 0

    def dataset(self) -> TokenDataset:
        """All sequences. None can be added afterwards."""
        return TokenDataset(
            torch.frombuffer(self._tokens, dtype=torch.uint16),
            torch.frombuffer(self._offsets, dtype=torch.int64),
            torch.frombuffer(self._is_target, dtype=torch.bool),
        )

    def notes(self) -> tuple[str, ...]:
        """What was left out of the records, in sentences."""
        notes = []
        if n := self.shortened:
            exceed, their = ("exceeds", "its") if n == 1 else ("exceed", "their")
            longer = f"{counted(n, 'conversation')} {exceed} {self._max_length:,} tokens"
            notes.append(f"{longer}: {their} first turns are left out")
        if n := self._without_place:
            what = f"{counted(n, 'record')} {'has' if n == 1 else 'have'} a system text, which is left out"
            notes.append(f"{what}: the prompt template has no preamble, which it could replace")
        return tuple(notes)

    def add(self, records: Sequence[Record]) -> None:
        """Tokenize these records: prompt, answer and end of text of each exchange, cut to the maximal length."""
        if not self._template.has_place_for_system:
            self._without_place += sum(bool(record.system.strip()) for record in records)
            records = [replace(record, system="") if record.system else record for record in records]
        for record, turns in zip(records, encode_turns(records, self._template, self._max_length), strict=True):
            self._append(record, turns)

    def _append(self, record: Record, turns: list[Turn]) -> None:
        """Append a record with the tokens of its exchanges; or count it as too long."""
        kept = last_turns(turns, self._max_length)
        if not kept:
            self.dropped_long += 1
            return
        if len(kept) < len(record.exchanges):
            self.shortened += 1
            record = replace(record, earlier=record.exchanges[-len(kept) : -1])
        if len(kept[-1].answer) < len(turns[-1].answer):
            self.truncated += 1
            record = replace(record, output=decode(kept[-1].answer))
        self.records.append(replace(record, input="") if record.input.isspace() else record)
        tokens, is_target = joined(kept, self._learns_prompts)
        self._tokens.extend(tokens)
        self._is_target += is_target
        self._offsets.append(len(self._tokens))
