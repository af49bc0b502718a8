"""Which records train the model, which tell when it is good, and which are kept aside until the end.

Every choice is a function of a seed and a count, the same on every machine.
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
    """Data ready to train on. `val` and `test` may be empty, `train` is not.

    template  how the instructions were put, None for plain text
    info      what is known about the data, ready for JSON: kind, source, counts, settings, fingerprint
    notes     remarks for the person who gave the data; not stored with it
    records   for each split by name, the records in its sequences; empty where they are not needed, or not known
    """

    train: TokenDataset
    val: TokenDataset
    test: TokenDataset
    template: PromptTemplate | None
    info: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    records: dict[str, list[Record]] = field(default_factory=dict)

    def by_name(self) -> dict[str, TokenDataset]:
        """The three of them, in the order train, val, test."""
        return {"train": self.train, "val": self.val, "test": self.test}


@dataclass(frozen=True)
class Indices:
    """Who goes where: each number from 0 to n - 1 in exactly one list, each list in ascending order."""

    train: list[int]
    val: list[int]
    test: list[int]


def split(n: int, data: DataConfig) -> Indices:
    """Divide n things by chance. Of two or more, a wanted `val` gets at least one; `train` always does."""
    n_val, n_test = sizes(n, data)
    order = permutation(n, data.seed)
    val, test, train = order[:n_val], order[n_val : n_val + n_test], order[n_val + n_test :]
    return Indices(sorted(train), sorted(val), sorted(test))


def sizes(n: int, data: DataConfig) -> tuple[int, int]:
    """How many of n things go to `val` and to `test`."""
    n_val = min(max(1, round(n * data.val_fraction)), n - 1) if data.val_fraction and n else 0
    n_test = min(max(1, round(n * data.test_fraction)), n - 1 - n_val) if data.test_fraction and n else 0
    return n_val, n_test


def sample(n: int, k: int, seed: int) -> list[int]:
    """k of the numbers from 0 to n - 1 by chance, or all if there are no more, in ascending order."""
    return sorted(permutation(n, seed)[:k])


def permutation(n: int, seed: int) -> Sequence[int]:
    """The numbers from 0 to n - 1 in random order."""
    # of Python's random numbers only random() itself is promised to stay the same in later versions
    draw = random.Random(seed)
    keys = [draw.random() for _ in range(n)]
    return sorted(range(n), key=keys.__getitem__)
