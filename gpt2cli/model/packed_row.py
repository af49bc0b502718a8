"""Several sequences in one row, without padding, for training and evaluation."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from gpt2cli.config import GPTConfig
from gpt2cli.model.gpt import Causal
from gpt2cli.model.pieces import Piece
from gpt2cli.model.token_checks import check_length

FLASH_SIZE = 192
"""The largest head for which FlashAttention has a backward pass on every GPU that it supports."""


class PackedRow(Causal):
    """A row (1, T) of several sequences, each of which sees only its own tokens.

    The row consists of pieces, `lengths[i]` tokens each. `prefixes[i]` is None if piece i is a whole sequence, or a
    prefix that several sequences share. Otherwise piece i is the rest of a sequence that begins with that piece.
    """

    def __init__(self, lengths: Sequence[int], prefixes: Sequence[int | None], device: torch.device) -> None:
        self.lengths = list(lengths)
        self.prefixes = list(prefixes)
        before = [0 if i is None else self.lengths[i] for i in self.prefixes]  # their lengths
        self.longest = max(a + n for a, n in zip(before, self.lengths, strict=True))
        steps = torch.arange(self.longest)  # on the CPU: a GPU waits for one copy rather than for many small kernels
        own = [steps[a : a + n] for a, n in zip(before, self.lengths, strict=True)]
        self._positions = torch.cat(own).to(device)
        self._is_uniform = len(set(self.lengths)) == 1 and not any(before)  # for example blocks of text
        # (n, a + n) for n tokens after a prefix of a; other pieces need no mask and are faster without
        self._masks = [
            (steps[: a + len(at)] <= at[:, None]).to(device) if a else None for a, at in zip(before, own, strict=True)
        ]
        self._bounds: Tensor | None = None  # (n + 1,) where pieces start and end, if the device has a kernel for that
        self._reach = 2 ** (self.longest - 1).bit_length()  # rounded up: each new number is compiled for
        if device.type == "cuda" and not any(before) and torch.cuda.get_device_capability(device) >= (8, 0):
            self._bounds = torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32).to(device)

    def positions(self, idx: Tensor, window: int) -> Tensor:
        """The position (T,) of each token in its sequence."""
        check_length(self.longest, window)
        return self._positions

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Attention within each piece and to its prefix; q, k and v are (1, H, T, D)."""
        H, D = q.shape[1], q.shape[3]
        if self._bounds is not None and q.dtype in (torch.bfloat16, torch.float16) and D % 8 == 0 and D <= FLASH_SIZE:
            return self._attend_in_one_kernel(q, k, v, self._bounds, dropout)
        if self._is_uniform:  # one call for all
            q_, k_, v_ = (t.view(H, len(self.lengths), -1, D).transpose(0, 1) for t in (q, k, v))
            y = F.scaled_dot_product_attention(q_, k_, v_, dropout_p=dropout, is_causal=True)
            return y.transpose(0, 1).reshape(q.shape)
        qs, ks, vs = (torch.split(t, self.lengths, dim=2) for t in (q, k, v))
        parts = []
        for i, (prefix, mask) in enumerate(zip(self.prefixes, self._masks, strict=True)):
            seen_k, seen_v = ks[i], vs[i]
            if prefix is not None:
                seen_k = torch.cat([ks[prefix], seen_k], dim=2)
                seen_v = torch.cat([vs[prefix], seen_v], dim=2)
            is_causal = mask is None and self.lengths[i] > 1
            parts.append(F.scaled_dot_product_attention(qs[i], seen_k, seen_v, mask, dropout, is_causal))
        return torch.cat(parts, dim=2)

    def _attend_in_one_kernel(self, q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, dropout: float) -> Tensor:
        """`attend` by FlashAttention-2 (Dao 2023) for sequences of different lengths, with `bounds` (n + 1,).

        PyTorch's public function for it, `torch.nn.attention.varlen.varlen_attn`, has no dropout.
        """
        rows = (t[0].transpose(0, 1) for t in (q, k, v))  # (T, H, D) each
        longest = self._reach
        y = torch.ops.aten._flash_attention_forward(*rows, bounds, bounds, longest, longest, dropout, True, False)[0]
        out: Tensor = y.transpose(0, 1)[None]
        return out

    def token_positions(self, shape: tuple[int, int], window: int) -> NDArray[np.int64]:
        """As `positions`, (1, T), for the compiled loops."""
        check_length(self.longest, window)
        return self._positions.cpu().numpy()[None]

    def pieces(self, T: int) -> NDArray[np.int64]:
        """The table for the compiled loops: see `Piece`. A token's place in `memory` is its index in the row."""
        starts = [0, *accumulate(self.lengths)]
        places = [(0, 0) if i is None else (starts[i], self.lengths[i]) for i in self.prefixes]
        rows = zip(starts[:-1], self.lengths, places, strict=True)
        return np.array([Piece(start, n, 0, start, *prefix) for start, n, prefix in rows], np.int64)

    def memory(self, config: GPTConfig, key_size: int, dtype: DTypeLike) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Keys and values (1, H, T, key_size) for the compiled loops. Layers share them: no later pass reads them."""
        keys, values = np.zeros((2, 1, config.n_head, len(self._positions), key_size), dtype)
        return [(keys, values)] * config.n_layer
