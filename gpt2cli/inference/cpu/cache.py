"""The KV cache of the compiled loops, in NumPy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpt2cli.config import GPTConfig
from gpt2cli.model.pieces import Piece
from gpt2cli.model.token_checks import check_length


class CPUCacheRows:
    """The rows of a cache that take part in a pass: all those of a CPUCache, or those of a CPUCacheView.

    keys, values  (L, B, H, S, key_size) for L layers, all B rows of the cache, and a capacity of S tokens
    rows          the rows that take part
    lengths       the number of tokens in each of them
    """

    keys: NDArray[Any]
    values: NDArray[Any]
    rows: Sequence[int]
    lengths: list[int]
    capacity: int

    def check_room(self, T: int, window: int) -> None:
        """Raise UsageError if T more tokens do not fit into the window or the capacity."""
        check_length(max(self.lengths) + T, min(window, self.capacity))

    def token_positions(self, shape: tuple[int, int], window: int) -> NDArray[np.int64]:
        """The positions (B, T) of new tokens. Also adds T to `lengths`.

        Raises UsageError if they do not fit into the window or the capacity; then the cache is unchanged.
        """
        T = shape[1]
        self.check_room(T, window)
        positions = np.array(self.lengths, np.int64)[:, None] + np.arange(T)
        self.lengths = [length + T for length in self.lengths]
        return positions

    def pieces(self, T: int) -> NDArray[np.int64]:
        """The table (see `Piece`) of the T newest tokens of each row, after `token_positions`."""
        rows = enumerate(zip(self.rows, self.lengths, strict=True))
        return np.array([Piece(b * T, T, row, end - T, 0, end - T) for b, (row, end) in rows], np.int64)

    def memory(self, config: GPTConfig, key_size: int, dtype: DTypeLike) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Keys and values of each layer, (B, H, S, key_size), as in PackedRow. They outlive the pass."""
        return list(zip(self.keys, self.values, strict=True))


class CPUCache(CPUCacheRows):
    """Keys and values for `rows` sequences of up to `capacity` tokens. The memory is reserved once.

    To read prompts of different lengths in one batch, pad them on the right and, after the pass, set `lengths` to the
    true lengths: later queries do not attend to the padding, which new tokens overwrite.
    """

    def __init__(self, config: GPTConfig, rows: int, capacity: int, *, key_size: int, dtype: DTypeLike) -> None:
        # zeros, because what lies beyond the size of a head is multiplied, too
        self.keys, self.values = np.zeros((2, config.n_layer, rows, config.n_head, capacity, key_size), dtype)
        self.rows, self.lengths = range(rows), [0] * rows
        self.capacity = capacity

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def view(self, rows: Sequence[int]) -> "CPUCacheView":
        """These rows, each at most once, as a cache for a pass. It shares this cache's memory and lengths."""
        return CPUCacheView(self, rows)

    def clear(self, row: int) -> None:
        """Forget a row's tokens. Their numbers may stay, even NaN: the loops read only `lengths[row]` tokens."""
        self.lengths[row] = 0

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order. The same row may be selected several times."""
        longest = max(self.lengths)
        self.keys, self.values = (_selected(old, rows, longest) for old in (self.keys, self.values))
        self.rows, self.lengths = range(len(rows)), [self.lengths[row] for row in rows]

    def copy_row(self, row: int, other: CPUCacheRows) -> None:
        """Replace the tokens of a row by those of the only row of another cache. The capacity must suffice."""
        self.lengths[row] = length = other.lengths[0]
        [source] = other.rows
        self.keys[:, row, :, :length] = other.keys[:, source, :, :length]
        self.values[:, row, :, :length] = other.values[:, source, :, :length]


class CPUCacheView(CPUCacheRows):
    """Some rows of a CPUCache."""

    def __init__(self, cache: CPUCache, rows: Sequence[int]) -> None:
        self.keys, self.values, self.capacity = cache.keys, cache.values, cache.capacity
        self.rows, self._cache = rows, cache

    @property
    def lengths(self) -> list[int]:
        return [self._cache.lengths[row] for row in self.rows]

    @lengths.setter
    def lengths(self, lengths: Sequence[int]) -> None:
        for row, length in zip(self.rows, lengths, strict=True):
            self._cache.lengths[row] = length


def _selected(old: NDArray[Any], rows: Sequence[int], length: int) -> NDArray[Any]:
    """These rows of (L, B, H, S, D), with their first `length` tokens."""
    new = np.zeros((old.shape[0], len(rows), *old.shape[2:]), old.dtype)
    for place, row in enumerate(rows):
        new[:, place, :, :length] = old[:, row, :, :length]
    return new
