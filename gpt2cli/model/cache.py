"""The KV cache: the keys and values of earlier tokens, so that decoding computes only those of new tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2cli.config import GPTConfig
from gpt2cli.model.gpt import Causal
from gpt2cli.model.token_checks import check_length


class KVCacheRows(Causal):
    """The rows of a cache that take part in a pass: all those of a KVCache, or those of a KVCacheView.

    k, v     keys and values (B, H, S, D) of each layer, for all B rows of the cache and a capacity of S tokens
    lengths  the number of tokens in each row that takes part
    """

    k: list[Tensor]
    v: list[Tensor]
    lengths: list[int]
    capacity: int
    _rows: slice | Tensor  # that take part
    # of the current pass; `positions` sets them
    _places: Tensor | None = None  # (B, T) of new tokens in their rows; None: the T before the end
    _mask: Tensor | None = None  # (B, 1, T, S); None: a token sees all tokens before it

    def positions(self, idx: Tensor, window: int) -> Tensor:
        """The positions (T,) or (B, T) of new tokens. Also adds T to `lengths`.

        Raises UsageError if they do not fit into the window or the capacity; then the cache is unchanged.
        """
        T, device, start = idx.shape[1], idx.device, self.lengths[0]
        end = max(self.lengths) + T
        check_length(end, min(window, self.capacity))
        new = torch.arange(T, device=device)
        is_even = self.lengths.count(start) == len(self.lengths)
        self._places = self._mask = None
        positions = new + start
        if not is_even or (T > 1 and start > 0):
            positions = torch.tensor(self.lengths, device=device)[:, None] + new
            self._mask = torch.arange(end, device=device) <= positions[:, None, :, None]
            self._places = None if is_even else positions
        self.lengths = [length + T for length in self.lengths]
        return positions

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Store keys and values of new tokens, (B, H, T, D), and attend to all tokens in the cache."""
        T, end = q.shape[2], max(self.lengths)
        for store, fresh in ((self.k[layer], k), (self.v[layer], v)):
            if self._places is None:
                store[self._rows, :, end - T : end] = fresh
            else:
                rows = torch.arange(len(store), device=fresh.device)[self._rows]
                store[rows[:, None], :, self._places] = fresh.transpose(1, 2)
        return F.scaled_dot_product_attention(
            q,
            self.k[layer][self._rows, :, :end],
            self.v[layer][self._rows, :, :end],
            attn_mask=self._mask,
            dropout_p=dropout,
            is_causal=self._mask is None and T > 1,  # a single token sees the whole cache
        )


class KVCache(KVCacheRows):
    """Keys and values for `rows` sequences of up to `capacity` tokens. The memory is allocated once.

    `lengths[b]` is the number of tokens in row b. To read prompts of different lengths in one batch, pad them on the
    right and, after the pass, set `lengths` to the true lengths: later queries do not attend to the padding, and new
    tokens overwrite it.
    """

    def __init__(
        self,
        config: GPTConfig,
        rows: int,
        capacity: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (rows, config.n_head, capacity, config.head_size)
        # zeros, because a masked value is multiplied by 0 and must be finite
        self.k = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.n_layer)]
        self.v = [torch.zeros_like(k) for k in self.k]
        self.lengths = [0] * rows
        self.capacity = capacity
        self._rows = slice(None)

    @property
    def nbytes(self) -> int:
        return sum(store.nbytes for store in self.k + self.v)

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order. The same row may be selected several times."""
        index = torch.tensor(rows, device=self.k[0].device)
        self.k = [k.index_select(0, index) for k in self.k]
        self.v = [v.index_select(0, index) for v in self.v]
        self.lengths = [self.lengths[row] for row in rows]

    def view(self, rows: Sequence[int]) -> "KVCacheView":
        """These rows, each at most once, as a cache for a pass. It shares this cache's memory and lengths."""
        return KVCacheView(self, rows)

    def clear(self, row: int) -> None:
        """Forget a row's tokens. Zeros replace them: a masked value is multiplied by 0, and NaN would stay NaN."""
        self.lengths[row] = 0
        for store in self.k + self.v:
            store[row] = 0

    def copy_row(self, row: int, other: KVCacheRows) -> None:
        """Replace the tokens of a row by those of the only row of another cache. The capacity must suffice."""
        self.lengths[row] = length = other.lengths[0]
        for mine, new in zip(self.k + self.v, other.k + other.v, strict=True):
            mine[row, :, :length] = new[other._rows, :, :length][0]


class KVCacheView(KVCacheRows):
    """Some rows of a KVCache. A pass copies their keys and values, unless they are neighbours in ascending order."""

    def __init__(self, cache: KVCache, rows: Sequence[int]) -> None:
        self.k, self.v, self.capacity = cache.k, cache.v, cache.capacity
        self._cache, self._numbers = cache, rows
        first, are_neighbours = rows[0], list(rows) == list(range(rows[0], rows[0] + len(rows)))
        index = slice(first, first + len(rows)) if are_neighbours else torch.tensor(rows, device=cache.k[0].device)
        self._rows = index

    @property
    def lengths(self) -> list[int]:
        return [self._cache.lengths[row] for row in self._numbers]

    @lengths.setter
    def lengths(self, lengths: Sequence[int]) -> None:
        for row, length in zip(self._numbers, lengths, strict=True):
            self._cache.lengths[row] = length
