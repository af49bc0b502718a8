"""The tokens with the largest logits, in NumPy. `gpu/torch_sampling.py` finds them on a GPU."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2cli.config import VOCAB_SIZE

TABLE_ROWS = 64
"""Rows of the table in which `_threshold` searches. With 50,257 logits, this number is the fastest."""

Found = tuple[NDArray[np.float32], NDArray[np.int64]]


def candidates(logits: NDArray[Any], count: int, seen: Sequence[NDArray[np.int64]] = (), penalty: float = 1.0) -> Found:
    """The largest logits (B, K) of each row of `logits` (B, V), in fp32, from the largest on, and their ids (B, K).

    At least `count` tokens of each row (all, if it has no more), and all whose logits equal the last of these. Equal
    logits are in the order of their ids. A row with fewer tokens than another ends with logits of -inf. For a row with
    a logit that is not a number, the first result is NaN. Tokens from VOCAB_SIZE on pad a checkpoint's table.

    seen     the tokens of each row to which the repetition penalty applies, without duplicates
    penalty  see `penalise_repetition`
    """
    logits = logits[:, :VOCAB_SIZE].astype(np.float32, copy=False)
    if penalty != 1:
        logits = penalise_repetition(logits, seen, penalty)
    return stacked([_row_candidates(row, count) for row in logits])


def penalise_repetition(logits: NDArray[Any], seen: Sequence[NDArray[np.int64]], penalty: float) -> NDArray[Any]:
    """Logits (B, V), in which those of each row's `seen` tokens are divided by the penalty, or multiplied if negative.

    No token may occur twice in a row of `seen`. Keskar et al. 2019, "CTRL", section 4.1; as in transformers, the
    penalty also makes negative logits smaller.
    """
    logits = logits.copy()
    for row, tokens in zip(logits, seen, strict=True):
        values = row[tokens]
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # the caller checks the result
            row[tokens] = np.where(values > 0, values / penalty, values * penalty)
    return logits


def stacked(rows: Sequence[Found]) -> Found:
    """Rows (K,) of different lengths as (B, K), ended with logits of -inf."""
    if len(rows) == 1:
        [(values, ids)] = rows
        return values[None], ids[None]
    shape = len(rows), max(len(values) for values, _ in rows)
    all_values, all_ids = np.full(shape, -math.inf, np.float32), np.zeros(shape, np.int64)
    for i, (values, ids) in enumerate(rows):
        all_values[i, : len(values)], all_ids[i, : len(ids)] = values, ids
    return all_values, all_ids


def _row_candidates(row: NDArray[np.float32], count: int) -> Found:
    """`candidates` for one row (V,), with the tokens that are above the threshold or equal to it."""
    best = row.max()
    if not -math.inf < best < math.inf:
        return np.array([best]), np.array([int(row.argmax())])
    if count >= len(row):
        return _sorted(row)
    above = np.flatnonzero(row >= (best if count == 1 else _threshold(row, count)))
    values = row[above]
    order = np.argsort(-values, kind="stable")
    values, above = values[order], above[order]
    kept = int(np.searchsorted(-values, -values[count - 1], side="right"))
    return values[:kept], above[:kept]


def _threshold(row: NDArray[np.float32], count: int) -> np.float32:
    """A number that at least `count` logits reach, and not many more.

    The logits become a table with TABLE_ROWS rows. The maximum of each of its columns is one of the logits.
    """
    columns = len(row) // TABLE_ROWS
    if count <= columns // 2:
        row = row[: TABLE_ROWS * columns].reshape(TABLE_ROWS, columns).max(axis=0)
    found: np.float32 = np.partition(row, len(row) - count)[len(row) - count]
    return found


def _sorted(row: NDArray[np.float32]) -> Found:
    """All logits of a row (V,) from the largest on, and their ids. NumPy sorts integers faster than floats.

    The upper half of an integer orders like the negative logit, the lower half is the token's id.
    """
    bits = (row + np.float32(0)).view(np.int32)  # + 0: the bits of -0 differ from those of 0
    order = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)
    keys = (-order << 32) | np.arange(len(row))
    keys.sort()
    ids = keys & 0xFFFFFFFF
    return row[ids], ids
