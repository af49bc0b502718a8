"""Which tokens attend to which, in the form that the compiled loops of `inference/cpu` read."""

from typing import NamedTuple


class Piece(NamedTuple):
    """A row of the table (n, 6) that a CPUCache or a PackedRow makes: consecutive new tokens of one sequence.

    Each attends to the prefix (earlier tokens of its sequence, in the same cache row) and to the piece up to itself.

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
