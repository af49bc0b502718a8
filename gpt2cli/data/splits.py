"""The division of data into records for training, validation and test.

The division depends only on a seed and the number of records. It is the same on every machine.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gpt2cli.config import DataConfig
from gpt2cli.data.dataset import TokenDataset
from gpt2cli.data.records import Record
from gpt2cli.prompts import PromptTemplate


@dataclass(frozen=True, eq=False)
class Splits:
    """Data ready to train on. `val` and `test` may be empty; `train` is not.

    template  the prompt template of the instructions; None for plain text
    info      facts about the data that can be written as JSON: kind, source, counts, settings, fingerprint
    notes     remarks for the person who gave the data; not stored with it
    records   for each split by name, the records in its sequences; empty if they are not needed, or not known
    """

    train: TokenDataset
    val: TokenDataset
    test: TokenDataset
    template: PromptTemplate | None
    info: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    records: dict[str, list[Record]] = field(default_factory=dict)

    @property
    def noun(self) -> str:
        """The word for one of the sequences: a conversation if any record has several exchanges."""
        if self.template is None:
            return "text block"
        return "conversation" if self.info.get("turns", 1) > 1 else "record"

    def by_name(self) -> dict[str, TokenDataset]:
        """The three splits in the order train, val, test."""
        return {"train": self.train, "val": self.val, "test": self.test}


def split(n: int, data: DataConfig) -> dict[str, list[int]]:
    """Divide the numbers from 0 to n - 1 at random into train, val and test. Each list is ascending.

    `train` gets at least one number, and so does a requested `val` if n is 2 or more.
    """
    n_val, n_test = sizes(n, data)
    order = permutation(n, data.seed)
    val, test, train = order[:n_val], order[n_val : n_val + n_test], order[n_val + n_test :]
    return {"train": sorted(train), "val": sorted(val), "test": sorted(test)}


def sizes(n: int, data: DataConfig) -> tuple[int, int]:
    """The sizes of `val` and `test` for n things."""
    n_val = min(max(1, round(n * data.val_fraction)), n - 1) if data.val_fraction and n else 0
    n_test = min(max(1, round(n * data.test_fraction)), n - 1 - n_val) if data.test_fraction and n else 0
    return n_val, n_test


def sample(n: int, k: int, seed: int) -> list[int]:
    """k random numbers from 0 to n - 1 in ascending order; all of them if k is n or more."""
    return sorted(permutation(n, seed)[:k])


def spread(k: int, n: int) -> list[int]:
    """k numbers from 0 to n - 1 at equal distances; all of them if k is n or more."""
    return [(2 * i + 1) * n // (2 * k) for i in range(k)] if k < n else list(range(n))


def permutation(n: int, seed: int) -> Sequence[int]:
    """The numbers from 0 to n - 1 in random order."""
    # Python guarantees only for random() that later versions give the same numbers
    draw = random.Random(seed)
    keys = [draw.random() for _ in range(n)]
    return sorted(range(n), key=keys.__getitem__)
