"""Causal attention of new tokens over the cache of keys and values.

`qkv` (m, 3 * C) holds queries, keys and values of m new tokens; `keys` and `values` (B, H, S, D) are the cache. A row
of `pieces` (n, 6) is a `model.pieces.Piece`. The package's docstring draws which tokens attend to which.
"""

from typing import Any

import numpy as np
from numba import prange

from gpt2cli.inference.cpu.compiling import compiled, parallel
from gpt2cli.inference.cpu.dot_kernels import TILE_ROWS, dot_products, weighted_sums
from gpt2cli.inference.cpu.elementwise import softmax
from gpt2cli.inference.cpu.llvm_simd import LANES
from gpt2cli.inference.cpu.packed_layout import rounded_up


def key_size(head_size: int) -> int:
    """The width of keys and values in the cache: `head_size` padded to whole vectors."""
    return rounded_up(head_size, LANES)


@compiled
def store_keys_values(C: int, qkv: Any, pieces: Any, keys: Any, values: Any) -> None:
    """Copy the keys and values of new tokens to the cache."""
    H = keys.shape[1]
    D = C // H
    for p in range(len(pieces)):
        first, length, cache_row, cache_place, _, _ = pieces[p]
        for t in range(length):
            for h in range(H):
                for d in range(D):
                    keys[cache_row, h, cache_place + t, d] = qkv[first + t, C + h * D + d]
                    values[cache_row, h, cache_place + t, d] = qkv[first + t, 2 * C + h * D + d]


@parallel
def attend(C: int, qkv: Any, pieces: Any, keys: Any, values: Any, out: Any) -> None:
    """Write attention's output for the new tokens to `out` (m, C). Their keys and values are in the cache already."""
    H = keys.shape[1]
    for task in prange(len(pieces) * H):
        _attend_head(C, qkv, task % H, pieces[task // H], keys, values, out)


@compiled
def _attend_head(C: int, qkv: Any, h: int, piece: Any, keys: Any, values: Any, out: Any) -> None:
    """The attention of one head for one piece, TILE_ROWS queries at a time."""
    first, length, cache_row, cache_place, prefix_place, prefix_length = piece
    D = C // keys.shape[1]
    head_keys, head_values = keys[cache_row, h], values[cache_row, h]  # (S, D)
    scale = np.float32(1) / np.sqrt(np.float32(D))
    queries = np.zeros((TILE_ROWS, keys.shape[3]), np.float32)
    weights = np.empty((TILE_ROWS, prefix_length + length), np.float32)
    mixed = np.empty((TILE_ROWS, keys.shape[3]), np.float32)
    for start in range(0, length, TILE_ROWS):
        n_queries = min(TILE_ROWS, length - start)
        for t in range(n_queries):
            for d in range(D):
                queries[t, d] = qkv[first + start + t, h * D + d] * scale
        n = prefix_length + start + n_queries  # tokens that the last query attends to
        for s in range(n):
            place = prefix_place + s if s < prefix_length else cache_place + s - prefix_length
            scores = dot_products(head_keys, weights, place, queries, 0, 1, 4)
            weights[0, s], weights[1, s], weights[2, s], weights[3, s] = scores
        for t in range(TILE_ROWS):
            n_visible = n - max(0, n_queries - t - 1)
            softmax(weights[t], n_visible)
            for s in range(n_visible, n):
                weights[t, s] = 0
        weighted_sums(weights, 0, head_values, prefix_place, prefix_length, mixed, False)
        weighted_sums(weights, prefix_length, head_values, cache_place, n - prefix_length, mixed, True)
        for t in range(n_queries):
            for d in range(D):
                out[first + start + t, h * D + d] = mixed[t, d]
