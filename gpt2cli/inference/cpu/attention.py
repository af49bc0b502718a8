"""Causal attention of new tokens over the cache of keys and values.

`qkv` (m, 3 * C or more) holds queries, keys and values of m new tokens; `keys` and `values` (B, H, S, D) are the cache,
in fp32 or fp16, with D as `key_size` says. `blocks` (n, 8) comes from `attention_blocks`, which numbers the tasks: a
task is one head of one block of queries. The package's docstring draws which tokens attend to which.

First all new keys and values must be stored, by any threads; then all tasks can run in any order, at the same time.
A query's result is the same to the bit in any pass, batch and block, over a cache or over a PackedRow.
"""

from typing import Any

import numpy as np

from gpt2cli.inference.cpu import attention_tasks
from gpt2cli.inference.cpu.attention_kernels import as_stored, scores, softmax, weighted_sums
from gpt2cli.inference.cpu.attention_tasks import QUERY_TILE
from gpt2cli.inference.cpu.compiler.functions import called, inlined
from gpt2cli.inference.cpu.processor import LANES

score_row = inlined(attention_tasks.score_row)


@inlined
def store_keys_values(C: int, qkv: Any, blocks: Any, keys: Any, values: Any, first_task: int, last_task: int) -> None:
    """Copy the keys and values of new tokens to the cache, for the tasks from `first_task` to before `last_task`."""
    D, n_blocks = C // keys.shape[1], len(blocks)
    for task in range(first_task, last_task):
        h, block = task // n_blocks, blocks[task % n_blocks]
        first, cache_row, cache_place = block[0], block[2], block[3]
        for t in range(block[6], block[6] + block[7]):
            new_key = qkv[first + t, C + h * D : C + (h + 1) * D]
            new_value = qkv[first + t, 2 * C + h * D : 2 * C + (h + 1) * D]
            key, value = keys[cache_row, h, cache_place + t], values[cache_row, h, cache_place + t]
            for d in range(D):
                key[d] = as_stored(new_key[d], keys)
            for d in range(D):
                value[d] = as_stored(new_value[d], values)


@inlined
def attend(
    C: int, qkv: Any, blocks: Any, keys: Any, values: Any, out: Any, first_task: int, last_task: int, scratch: Any
) -> None:
    """Write attention's output to `out` (m, C or more), for the tasks from `first_task` to before `last_task`.

    `scratch` is memory for one thread; `attention_scratch` says how many numbers in fp32.
    """
    D, n_blocks = C // keys.shape[1], len(blocks)
    for task in range(first_task, last_task):
        h = task // n_blocks
        first, _, row, place, prefix_place, prefix_length, start, count = blocks[task % n_blocks]
        heads = keys[row, h], values[row, h]
        is_one = prefix_place + prefix_length == place  # the prefix and the piece are one range of the cache
        begin, separate, earlier = (prefix_place, 0, prefix_length) if is_one else (place, prefix_length, 0)
        for at in range(start, start + count, QUERY_TILE):
            n = min(QUERY_TILE, start + count - at)
            ranges = prefix_place, separate, begin, earlier + at + n
            _attend_tile(D, qkv, first + at, h, n, heads, *ranges, out, scratch)


@called
def _attend_tile(
    D: int,
    qkv: Any,
    row: int,
    h: int,
    n: int,
    heads: Any,
    prefix: int,
    prefix_length: int,
    place: int,
    length: int,
    out: Any,
    scratch: Any,
) -> None:
    """Attention of head h of n queries, at most QUERY_TILE, of which the last one attends to two ranges of the cache.

    The first query is in this row of `qkv`.
    """
    keys, values = heads
    width, visible = keys.shape[1], prefix_length + length
    stride = score_row(visible)
    inverses, mixed = scratch[:QUERY_TILE], scratch[LANES : LANES + QUERY_TILE * width]
    weights = scratch[LANES + QUERY_TILE * width :]
    tile = 1 if n == 1 else QUERY_TILE
    scale = np.float32(1) / np.sqrt(np.float32(D))
    for i in range(tile * width):
        mixed[i] = 0
    for t in range(n):
        for d in range(D):
            mixed[t * width + d] = qkv[row + t, h * D + d] * scale
    for part in range(2):
        at, s, count = (place, prefix_length, length) if part == 1 else (prefix, 0, prefix_length)
        if count > 0:
            scores(mixed, tile, keys, at, count, weights, s, stride)
    for t in range(tile):
        inverses[t] = softmax(weights, t * stride, visible - max(0, n - t - 1), visible)
    for part in range(2):
        at, s, count = (place, prefix_length, length) if part == 1 else (prefix, 0, prefix_length)
        weighted_sums(weights, s, stride, tile, values, at, count, mixed, s > 0)
    for t in range(n):
        for d in range(D):
            out[row + t, h * D + d] = mixed[t * width + d] * inverses[t]
