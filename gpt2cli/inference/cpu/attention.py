"""Attention over the cache."""

from typing import Any

import numpy as np
from numba import prange

from gpt2cli.inference.cpu.compiling import compiled, parallel
from gpt2cli.inference.cpu.dot_kernels import ROWS, mix, tile
from gpt2cli.inference.cpu.elementwise import softmax
from gpt2cli.inference.cpu.llvm_simd import LANES
from gpt2cli.inference.cpu.matmul import rounded_up


def key_size(head_size: int) -> int:
    """How long a row of the cache must be."""
    return rounded_up(head_size, LANES)


def attend(C: int, qkv: Any, pieces: Any, keys: Any, values: Any, out: Any) -> None:
    """Causal attention of the rows of `qkv` (m, 3 * C), of pieces one after another, into `out` (m, C).

    A piece is a line of numbers: its first row and how many there are; the cache's row that its keys and values go to,
    and the place there from which on; the place of what it goes on from, in the same row of the cache, and how many
    tokens that has. Each of its tokens sees these, itself, and those of the piece before it.
    """
    _take_up(C, qkv, pieces, keys, values)
    _attend(C, qkv, pieces, keys, values, out)


@compiled
def _take_up(C: int, qkv: Any, pieces: Any, keys: Any, values: Any) -> None:
    H = keys.shape[1]
    D = C // H
    for p in range(len(pieces)):
        first, count, row, place, _, _ = pieces[p]
        for t in range(count):
            for h in range(H):
                for d in range(D):
                    keys[row, h, place + t, d] = qkv[first + t, C + h * D + d]
                    values[row, h, place + t, d] = qkv[first + t, 2 * C + h * D + d]


@parallel
def _attend(C: int, qkv: Any, pieces: Any, keys: Any, values: Any, out: Any) -> None:
    H = keys.shape[1]
    for task in prange(len(pieces) * H):
        _attend_head(C, qkv, task % H, pieces[task // H], keys, values, out)


@compiled
def _attend_head(C: int, qkv: Any, h: int, piece: Any, keys: Any, values: Any, out: Any) -> None:
    first, count, row, place, before, n_before = piece
    D = C // keys.shape[1]
    own_keys, own_values = keys[row, h], values[row, h]  # (S, D)
    scale = np.float32(1) / np.sqrt(np.float32(D))
    queries = np.zeros((ROWS, keys.shape[3]), np.float32)
    shares = np.empty((ROWS, n_before + count), np.float32)
    mixed = np.empty((ROWS, keys.shape[3]), np.float32)
    for start in range(0, count, ROWS):
        some = min(ROWS, count - start)
        for t in range(some):
            for d in range(D):
                queries[t, d] = qkv[first + start + t, h * D + d] * scale
        n = n_before + start + some  # what the last of them sees
        for s in range(n):
            at = before + s if s < n_before else place + s - n_before
            shares[0, s], shares[1, s], shares[2, s], shares[3, s] = tile(own_keys, shares, at, queries, 0, 1, 4)
        for t in range(ROWS):
            sees = n - max(0, some - t - 1)
            softmax(shares[t], sees)
            for s in range(sees, n):
                shares[t, s] = 0
        mix(shares, 0, own_values, before, n_before, mixed, False)
        mix(shares, n_before, own_values, place, n - n_before, mixed, True)
        for t in range(some):
            for d in range(D):
                out[first + start + t, h * D + d] = mixed[t, d]
