"""How attention is divided into tasks, and the sizes of its memory. Needs no compiler."""

import numpy as np
from numpy.typing import NDArray

from gpt2cli.inference.cpu.packed_layout import rounded_up
from gpt2cli.inference.cpu.processor import LANES

QUERY_TILE = 4
"""Queries that are multiplied together by a key that was read once. A single query is multiplied alone."""
TASK_QUERIES = 64
"""The most queries of a task, a multiple of QUERY_TILE."""


def key_size(head_size: int) -> int:
    """The width of keys and values in the cache: `head_size` padded to whole vectors."""
    return rounded_up(head_size, LANES)


def attention_blocks(pieces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Divide the pieces (n, 6) of a pass into blocks of at most TASK_QUERIES queries, the longest work first.

    A block (n, 8) is a `Piece`, followed by its first query, counted from the piece's first token, and the number of
    its queries. A task of attention computes one head of one block: there are H * n tasks, and task number h * n + b is
    head h of block b.
    """
    lengths = pieces[:, 1]
    if lengths.max() <= TASK_QUERIES:  # each piece is a block, as in decoding
        return np.column_stack((pieces, np.zeros_like(lengths), lengths))
    counts = -(-lengths // TASK_QUERIES)
    piece = np.repeat(np.arange(len(pieces)), counts)
    start = (np.arange(len(piece)) - np.repeat(np.cumsum(counts) - counts, counts)) * TASK_QUERIES
    length = np.minimum(lengths[piece] - start, TASK_QUERIES)
    work = length * (pieces[piece, 5] + start + length)
    order = np.argsort(-work, kind="stable")
    return np.ascontiguousarray(np.column_stack((pieces[piece], start, length))[order])


def attention_scratch(longest: int, head_size: int) -> int:
    """The numbers in fp32 that a thread needs for queries that attend to up to `longest` tokens."""
    return LANES + QUERY_TILE * (key_size(head_size) + score_row(longest))


def score_row(n: int) -> int:
    """The distance between the scores of two queries that attend to up to n tokens. Loops write whole vectors."""
    return -(-n // LANES) * LANES + LANES
