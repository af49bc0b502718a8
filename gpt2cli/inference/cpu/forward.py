"""A forward pass on a CPU, as every thread runs it: all layers in one call, with a barrier after each step.

Imported only to compile.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpt2cli.inference.cpu import pass_table as at
from gpt2cli.inference.cpu.attention import attend, store_keys_values
from gpt2cli.inference.cpu.compiling import inlined
from gpt2cli.inference.cpu.elementwise import ADD, GELU, STORE, layer_norm
from gpt2cli.inference.cpu.products import COUNTERS_OF_PRODUCT, own_memory, product, share
from gpt2cli.inference.cpu.shared_memory import array_at, next_tasks, wait_for_all

EntryPoint = Callable[[int, int], None]
"""Takes the address of a table, and the number of the thread that calls it."""


def forward_of(kind: Any, other_kind: Any, cache_kind: Any) -> EntryPoint:
    """The function that applies all layers and the final norm to the residual stream, for these types of arrays.

    A matrix is of type `kind`, or of `other_kind` if its record says so. `cache_kind` is that of keys and values.
    """

    @inlined
    def multiply(t: Any, record: Any, x: Any, y: Any, epilogue: int, counter: int, thread: int) -> None:
        if record[at.KIND] == 0:
            product(t, record, kind, x, y, epilogue, counter, thread)
        else:
            product(t, record, other_kind, x, y, epilogue, counter, thread)

    def forward(table: int, thread: int) -> None:
        t = array_at(table, 1, at.SIZE, np.int64)[0]
        m, C, threads = t[at.ROWS], t[at.N_EMBD], t[at.THREADS]
        width, inner_width = t[at.WIDTH], t[at.INNER_WIDTH]
        x, shared = array_at(t[at.X], m, width, np.float32), array_at(t[at.NORMED], m, width, np.float32)
        qkv = array_at(t[at.QKV], m, t[at.QKV_WIDTH], np.float32)
        inner = array_at(t[at.INNER], m, inner_width, np.float32)
        own_row = array_at(own_memory(t, thread) + t[at.OWN_ROW], 1, width, np.float32)
        counter = t[at.COUNTERS]
        for layer in range(t[at.LAYERS]):
            record = array_at(t[at.LAYER_RECORDS], t[at.LAYERS], at.LAYER_SIZE, np.int64)[layer]
            normed = own_row if m == 1 else shared
            normalize(t, record[at.LN_1], x, normed, counter, thread)
            counter += at.COUNTER_BYTES
            multiply(t, record[at.C_ATTN :], normed, qkv, STORE, counter, thread)
            counter += COUNTERS_OF_PRODUCT * at.COUNTER_BYTES
            attention(t, layer, cache_kind, qkv, shared, counter, thread)
            counter += 3 * at.COUNTER_BYTES
            multiply(t, record[at.ATTN_C_PROJ :], shared, x, ADD, counter, thread)
            counter += COUNTERS_OF_PRODUCT * at.COUNTER_BYTES
            normalize(t, record[at.LN_2], x, normed, counter, thread)
            counter += at.COUNTER_BYTES
            multiply(t, record[at.C_FC :], normed, inner, GELU, counter, thread)
            counter += COUNTERS_OF_PRODUCT * at.COUNTER_BYTES
            multiply(t, record[at.MLP_C_PROJ :], inner, x, ADD, counter, thread)
            counter += COUNTERS_OF_PRODUCT * at.COUNTER_BYTES
        first, last = share(m, threads, thread)
        norm = array_at(t[at.FINAL_NORM], 2, C, np.float32)
        layer_norm(x, norm, array_at(t[at.EPSILON], 1, 1, np.float32)[0, 0], shared, first, last)
        wait_for_all(counter, threads)

    return forward


@inlined
def normalize(t: Any, norm: int, x: Any, out: Any, counter: int, thread: int) -> None:
    """Write the layer norm of x to `out`. A single row is normalized by each thread for itself."""
    m, threads = t[at.ROWS], t[at.THREADS]
    weights = array_at(norm, 2, t[at.N_EMBD], np.float32)
    epsilon = array_at(t[at.EPSILON], 1, 1, np.float32)[0, 0]
    if m == 1:
        layer_norm(x, weights, epsilon, out, 0, 1)
    else:
        first, last = share(m, threads, thread)
        layer_norm(x, weights, epsilon, out, first, last)
        wait_for_all(counter, threads)


@inlined
def attention(t: Any, layer: int, kind: Any, qkv: Any, out: Any, counter: int, thread: int) -> None:
    """Store the keys and values of the new tokens, then attend. Uses three counters."""
    heads, threads = t[at.HEADS], t[at.THREADS]
    addresses = array_at(t[at.CACHE_RECORDS], t[at.LAYERS], 2, np.int64)[layer]
    rows, capacity, size = t[at.CACHE_ROWS], t[at.CAPACITY], t[at.KEY_SIZE]
    keys = cache_at(addresses[0], rows, heads, capacity, size, kind)
    values = cache_at(addresses[1], rows, heads, capacity, size, kind)
    pieces = array_at(t[at.PIECE_RECORDS], t[at.PIECES], at.PIECE_SIZE, np.int64)
    own = array_at(own_memory(t, thread), 1, t[at.OWN_BYTES] // 4, np.float32)[0]
    tasks = attention_tasks(pieces, heads)
    ...
