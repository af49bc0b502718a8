"""Causal attention of new tokens over the cache of keys and values.

`qkv` (m, 3 * C) holds queries, keys and values of m new tokens; `keys` and `values` (B, H, S, D) are the cache. A row
of `pieces` (n, 6) is a `model.pieces.Piece`. The package's docstring draws which tokens attend to which.
"""

from typing import Any

import numpy as np

from gpt2cli.inference.cpu.compiler.functions import inlined
from gpt2cli.inference.cpu.elementwise import softmax
from gpt2cli.inference.cpu.processor import LANES
from gpt2cli.inference.cpu.packed_layout import rounded_up


def key_size(head_size: int) -> int:
    """The width of keys and values in the cache: `head_size` padded to whole vectors."""
    return rounded_up(head_size, LANES)



@inlined
def attention_tasks(pieces, H):
    return len(pieces) * H
@inlined
def store_keys_values(C, qkv, pieces, keys, values, a, b):
    H = keys.shape[1]
    D = C // H
    for task in range(a, b):
        p, h = task // H, task % H
        first, length, cache_row, cache_place, _, _ = pieces[p]
        for t in range(length):
            for d in range(D):
                keys[cache_row, h, cache_place + t, d] = qkv[first + t, C + h * D + d]
                values[cache_row, h, cache_place + t, d] = qkv[first + t, 2 * C + h * D + d]
@inlined
def attend(C, qkv, pieces, keys, values, out, a, b, scratch):
    H = keys.shape[1]
    D = C // H
    for task in range(a, b):
        p, h = task // H, task % H
        first, length, cache_row, cache_place, prefix_place, prefix_length = pieces[p]
        scale = np.float32(1) / np.sqrt(np.float32(D))
        for t in range(length):
            n = prefix_length + t + 1
            for s in range(n):
                place = prefix_place + s if s < prefix_length else cache_place + s - prefix_length
                v = np.float32(0)
                for d in range(D):
                    v += qkv[first + t, h*D+d] * keys[cache_row, h, place, d]
                scratch[s] = v * scale
            softmax(scratch, n)
            for d in range(D):
                out[first+t, h*D+d] = 0
            for s in range(n):
                place = prefix_place + s if s < prefix_length else cache_place + s - prefix_length
                for d in range(D):
                    out[first+t, h*D+d] += scratch[s] * values[cache_row, h, place, d]
