"""The table by which a KVCache or a PackedRow tells the compiled loops which tokens attend to which."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Piece(NamedTuple):
    """Consecutive tokens of one sequence. Each attends to the prefix, and to the piece up to itself.

    first          the first token, as an index into the tokens of the pass
    length         the number of tokens
    cache_row      the row of the cache that stores their keys and values
    cache_place    where in that row the first is stored
    prefix_place   where in that row the prefix is stored
    prefix_length  the number of tokens in the prefix
    """

    first: int
    length: int
    cache_row: int
    cache_place: int
    prefix_place: int
    prefix_length: int


def piece_table(pieces: Sequence[Piece]) -> NDArray[np.int64]:
    """The pieces as rows of a table, (n, 6)."""
    return np.array(pieces, np.int64)
