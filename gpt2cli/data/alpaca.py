"""Alpaca's records as token sequences: prompt, response, end of text."""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from gpt2cli.config import DataConfig
from gpt2cli.data.columns import Columns
from gpt2cli.data.dataset import TokenDataset
from gpt2cli.data.encoding import LONGEST_TOKEN, batches, encode_many
from gpt2cli.data.records import Record, read_records
from gpt2cli.data.splits import sample
from gpt2cli.errors import DataError
from gpt2cli.prompts import ALPACA, PromptTemplate
from gpt2cli.tokenizer import END_OF_TEXT_ID, decode

OnBatch = Callable[[int, int], None]
"""A function that is called after each batch with the number of tokenized records, and of all records."""


@dataclass(frozen=True)
class Counts:
    """Numbers of a file's records. `records` is the sum of the bad, dropped, left out and kept ones.

    bad            malformed, and skipped as requested
    dropped_empty  without a response
    left_out       not in the requested subset
    dropped_long   with a prompt that leaves no room for a response
    truncated      kept, but cut to the maximal length
    kept           stored as sequences. These hold `tokens` tokens, of which `targets` are targets.
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


@dataclass(frozen=True, eq=False)
class Alpaca:
    """A file of records, tokenized, in the order of the file.

    records  the record of each sequence: its output is cut as its tokens are, and a blank input is empty
    columns  the columns of the file that were taken
    notes    remarks on how the file was read, and on its unused parts
    """

    dataset: TokenDataset
    records: list[Record]
    counts: Counts
    columns: Columns
    notes: tuple[str, ...] = ()


def read_alpaca(
    path: Path,
    max_length: int,
    loss_on: Literal["response", "all"],
    data: DataConfig,
    skip_bad: bool = False,
    on_batch: OnBatch | None = None,
    template: PromptTemplate = ALPACA,
    columns: Mapping[str, str] | None = None,
) -> Alpaca:
    """Read and tokenize a file. See `read_records` for its format and errors, and `Counts` for dropped records.

    A `subset` is chosen at random, with the seed of `data`, from the records that have a response. Raises DataError if
    no record is left.
    """
    read = read_records(path, skip_bad, columns)
    answered = [record for record in read.good if record.output.strip()]
    chosen = answered if data.subset is None else [answered[i] for i in sample(len(answered), data.subset, data.seed)]
    tokenized = _Sequences(template, max_length, loss_on)
    done = 0
    for batch in batches(chosen, lambda record: len(record.instruction) + len(record.input) + len(record.output)):
        tokenized.add(batch)
        done += len(batch)
        if on_batch:
            on_batch(done, len(chosen))
    if done == tokenized.dropped_long:
        empty, long = len(read.good) - len(answered), tokenized.dropped_long
        why = f"{empty} have no output, and the prompts of {long} alone fill the {max_length} tokens"
        raise DataError(f"{path}: no record is left ({why}): give other data, or a larger --max-length")
    dataset = TokenDataset(
        torch.frombuffer(tokenized.tokens, dtype=torch.uint16),
        torch.frombuffer(tokenized.offsets, dtype=torch.int64),
        torch.frombuffer(tokenized.is_target, dtype=torch.bool),
    )
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
    )
    return Alpaca(dataset, tokenized.records, counts, read.columns, read.notes)


class _Sequences:
    """Token sequences that grow, two bytes a token, and the records in them."""

    def __init__(self, template: PromptTemplate, max_length: int, loss_on: Literal["response", "all"]) -> None:
        self._template, self._max_length, self._loss_on = template, max_length, loss_on
        self.tokens = array("H")
        self.offsets = array("q", [0])
        self.is_target = bytearray()
        self.records: list[Record] = []
        self.truncated = self.dropped_long = 0

    def add(self, records: Sequence[Record]) -> None:
        """Tokenize these records: prompt, response and end of text, cut to the maximal length.

        The prompt and the response are encoded separately, as they are when a model answers.
        """
        # further characters cannot fit, and there may be 100 million of them
        most = self._max_length * LONGEST_TOKEN + 1
        prompts = [self._template.prompt(record.instruction, record.input)[:most] for record in records]
        encoded = encode_many(prompts + [record.output[:most] for record in records])
        for i, record in enumerate(records):
            self._append(record, encoded[i], [*encoded[len(records) + i], END_OF_TEXT_ID])

    def _append(self, record: Record, prompt: list[int], response: list[int]) -> None:
        room = self._max_length - len(prompt)
        first = max(1, len(prompt)) if self._loss_on == "response" else 1
        if self._max_length <= first or room < 1:
            self.dropped_long += 1
            return
        if len(response) > room:
            self.truncated += 1
            record = replace(record, output=decode(response[:room]))
        self.records.append(replace(record, input="") if record.input.isspace() else record)
        self.tokens.extend(prompt)
        self.tokens.extend(response[:room])
        self.offsets.append(len(self.tokens))
        self.is_target += bytes(first) + b"\1" * (len(prompt) + min(room, len(response)) - first)
