"""Which records a step sees, and how they become rows without padding."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2cli.data.dataset import TokenDataset


@dataclass(frozen=True)
class Row:
    """Sequences end to end in one row, for one forward pass: see `GPT.hidden`.

    idx        (1, T) the tokens that are read
    lengths    how many of them belong to each sequence
    positions  (N,) where in the row a token is predicted that counts
    targets    (N,) those tokens
    """

    idx: Tensor
    lengths: list[int]
    positions: Tensor
    targets: Tensor


def seed_for(*parts: int | str) -> int:
    """A seed of 63 bits that differs for every run of parts: one random stream for each purpose, epoch, step, rank."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def records_of_step(n: int, per_step: int, step: int, seed: int) -> list[int]:
    """The records, out of n, of optimizer step `step` (counted from 0), a function of nothing but these numbers.

    Every epoch has an order of its own; its last step takes what is left.
    """
    epoch, i = divmod(step, steps_per_epoch(n, per_step))
    shuffle = torch.Generator().manual_seed(seed_for("order", seed, epoch))
    order: list[int] = torch.randperm(n, generator=shuffle)[i * per_step : (i + 1) * per_step].tolist()
    return order


def steps_per_epoch(n: int, per_step: int) -> int:
    return -(-n // per_step)


def make_rows(data: TokenDataset, records: Sequence[int], max_tokens: int, device: torch.device) -> list[Row]:
    """The records in rows of at most `max_tokens` tokens each; a longer record has a row of its own."""
    groups: list[list[int]] = []
    room = 0
    lengths = data.lengths[list(records)].tolist()
    for record, length in zip(records, lengths, strict=True):
        if length > room or not groups:
            groups.append([])
            room = max_tokens
        groups[-1].append(record)
        room -= length
    return [make_row(data, group, device) for group in groups]


def make_row(data: TokenDataset, records: Sequence[int], device: torch.device) -> Row:
    inputs, positions, targets, lengths, start = [], [], [], [], 0
    for record in records:
        ids, loss_from = data[record]
        inputs.append(ids[:-1])
        positions.append(torch.arange(start + loss_from - 1, start + len(ids) - 1))
        targets.append(ids[loss_from:])
        lengths.append(len(ids) - 1)
        start += len(ids) - 1
    return Row(
        torch.cat(inputs)[None].to(device), lengths, torch.cat(positions).to(device), torch.cat(targets).to(device)
    )
