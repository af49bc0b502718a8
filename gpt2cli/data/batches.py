"""The records of each training step, and the packed rows that they become."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from gpt2cli.data.dataset import TokenDataset
from gpt2cli.model.packed_row import PackedRow

PREFIX_KEY = 16
"""The number of first tokens that sequences must share to be grouped. Alpaca's template begins with more."""


@dataclass(frozen=True)
class Batch:
    """Sequences in one row, for one forward pass.

    idx        (1, T) the tokens in the row
    sight      which of them belong to which sequence
    places     (N,) the places in the row whose next tokens are targets
    targets    (N,) the tokens to predict
    records    the records in the row, in the order of their targets
    """

    idx: Tensor
    sight: PackedRow
    places: Tensor
    targets: Tensor
    records: list[int]


def seed_for(*parts: int | str) -> int:
    """A seed of 63 bits made of all parts, so that each purpose, epoch, step and rank has its own random stream."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def records_of_step(kinds: Tensor, per_step: int, step: int, seed: int) -> list[int]:
    """The records of optimizer step `step` (counted from 0). They depend on the arguments only.

    Each epoch has its own order, and its last step may have fewer records. The order is random, except that records of
    the same kind are put into the same steps as far as possible. `kinds`, (n,), gives the kind of each record.
    """
    epoch, i = divmod(step, steps_per_epoch(len(kinds), per_step))
    order, places = _order_of_epoch(kinds, per_step, epoch, seed)
    i = places[i] if i < len(places) else i
    records: list[int] = order[i * per_step : (i + 1) * per_step].tolist()
    return records


@lru_cache(maxsize=2)  # tensors are compared by identity here: all steps of a run pass the same one
def _order_of_epoch(kinds: Tensor, per_step: int, epoch: int, seed: int) -> tuple[Tensor, list[int]]:
    """The records of an epoch in groups of a step each, (n,), and the group of each full step."""
    shuffle = torch.Generator().manual_seed(seed_for("order", seed, epoch))
    order = torch.randperm(len(kinds), generator=shuffle)
    order = order[kinds[order].argsort(stable=True)]
    places: list[int] = torch.randperm(len(kinds) // per_step, generator=shuffle).tolist()
    return order, places


def kinds_of(data: TokenDataset) -> Tensor:
    """The kind of each sequence, (n,): those with the same first tokens are of the same kind."""
    shared = data.first_targets > PREFIX_KEY
    places = data.offsets[:-1][shared][:, None] + torch.arange(PREFIX_KEY)
    kinds = torch.zeros(len(data), dtype=torch.int64)
    beginnings = data.tokens.view(torch.int16)[places]  # torch does not sort uint16
    kinds[shared] = torch.unique(beginnings, dim=0, return_inverse=True)[1] + 1
    return kinds


def steps_per_epoch(n: int, per_step: int) -> int:
    return -(-n // per_step)


def make_rows(data: TokenDataset, records: Sequence[int], max_tokens: int, device: torch.device) -> list[Batch]:
    """The records in rows of at most `max_tokens` tokens each. A longer record gets a separate row.

    If several records of a row share their first tokens, the row holds these once: see `rows_of_groups`. With Alpaca's
    template these tokens are a large part of a short record. Not on CUDA.
    """
    groups = [[record] for record in records] if device.type == "cuda" else _alike(data, records)
    return list(rows_of_groups(data, groups, max_tokens, device))


def rows_of_groups(
    data: TokenDataset, groups: Iterable[Sequence[int]], max_tokens: int, device: torch.device
) -> Iterator[Batch]:
    """As `make_rows`, for records in groups. In a row, the first tokens that a whole group shares occur once.

    The losses and gradients are the same for less work. Not on CUDA, whose attention kernel for packed rows takes whole
    sequences.
    """
    rows: list[list[_Group]] = []
    room, lengths = 0, data.lengths  # worked out once: it takes a pass over all records
    for alike in groups:
        prefix = _common_prefix(data, alike) if len(alike) > 1 and device.type != "cuda" else 0
        group: _Group | None = None
        for record, tokens in zip(alike, lengths[list(alike)].tolist(), strict=True):
            length = tokens - 1  # the last is predicted, not read
            cost = length - prefix if group else length
            if not rows or cost > room:
                rows.append([])
                room, group, cost = max_tokens, None, length
            if group is None:
                group = _Group(prefix, [])
                rows[-1].append(group)
            group.records.append(record)
            room -= cost
    return (_make_row(data, row, device) for row in rows)


@dataclass(frozen=True)
class _Group:
    """Records of one row that share their first `prefix` tokens."""

    prefix: int
    records: list[int]


def _make_row(data: TokenDataset, groups: Sequence[_Group], device: torch.device) -> Batch:
    pieces: list[Tensor] = []
    prefixes: list[int | None] = []  # the number of the piece before each, if it has one
    places, targets, start = [], [], 0
    for group in groups:
        before, prefix = None, 0
        if len(group.records) > 1 and group.prefix:
            before, prefix = len(pieces), group.prefix
            pieces.append(data[group.records[0]][0][:prefix])
            prefixes.append(None)
            start += prefix
        for record in group.records:
            ids, is_target = data[record]
            pieces.append(ids[prefix:-1])
            prefixes.append(before)
            # a target is predicted at the token before it, and no target follows a token of the prefix
            places.append(torch.nonzero(is_target[1 + prefix :])[:, 0] + start)
            targets.append(ids[is_target])
            start += len(pieces[-1])
    idx, at, wanted = (torch.cat(parts).to(device) for parts in (pieces, places, targets))
    records = [record for group in groups for record in group.records]
    return Batch(idx[None], PackedRow([len(piece) for piece in pieces], prefixes, device), at, wanted, records)


def _alike(data: TokenDataset, records: Sequence[int]) -> list[list[int]]:
    """The records grouped by their first tokens."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for record, first in zip(records, data.first_targets[list(records)].tolist(), strict=True):
        key = (*data[record][0][:PREFIX_KEY].tolist(),) if first > PREFIX_KEY else (-1, record)
        groups.setdefault(key, []).append(record)
    return list(groups.values())


def _common_prefix(data: TokenDataset, records: Sequence[int]) -> int:
    """The number of first tokens that all records share, without positions where a target is predicted."""
    end = int(data.first_targets[list(records)].min()) - 1
    beginnings = torch.stack([data[record][0][:end] for record in records])
    same = (beginnings == beginnings[0]).all(dim=0)
    return int(same.cumprod(dim=0).sum())
