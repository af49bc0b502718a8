"""The functions that are compiled for a precision, as every thread calls them. Imported only to compile.

A forward pass applies all layers in one call. After each step, the threads wait for each other. A step divides its work
into tasks; each thread takes the next ones from a counter until none is left.
"""

from typing import Any

import numpy as np

from gpt2cli.inference.cpu import pass_table as at
from gpt2cli.inference.cpu.attention import attend, store_keys_values
from gpt2cli.inference.cpu.compiler.functions import Compiled, called, inlined
from gpt2cli.inference.cpu.compiler.translate import Unit
from gpt2cli.inference.cpu.elementwise import layer_norm
from gpt2cli.inference.cpu.epilogue import ADD, GELU, STORE
from gpt2cli.inference.cpu.packed_layout import WEIGHT_TYPES, around_precision
from gpt2cli.inference.cpu.products import own_memory, product, share
from gpt2cli.inference.cpu.shared_memory import array_at, next_tasks, wait_for_all


def module_for(precision: str) -> str:
    """The functions of `compiling.Loops` for a precision, in LLVM's language."""
    unit = Unit(precision)
    for name, function in entry_points(precision).items():
        unit.add_entry_point(function, name, parameters=2)
    return str(unit.module)


def entry_points(precision: str) -> dict[str, Compiled]:
    """The functions to compile for a precision, by name."""
    kind, head_kind = WEIGHT_TYPES[precision], WEIGHT_TYPES[around_precision(precision)]
    keys_kind = at.cache_type(precision)

    def forward(table: int, thread: int) -> None:
        """Apply all layers and the final norm to the residual stream X. NORMED receives the result."""
        t = array_at(table, (at.SIZE,), np.int64)
        m, width = t[at.ROWS], t[at.WIDTH]
        x, shared = array_at(t[at.X], (m, width), np.float32), array_at(t[at.NORMED], (m, width), np.float32)
        qkv = array_at(t[at.QKV], (m, t[at.QKV_WIDTH]), np.float32)
        inner = array_at(t[at.INNER], (m, t[at.INNER_WIDTH]), np.float32)
        own = array_at(own_memory(t, thread), (1, width), np.float32)
        normed = own if m == 1 else shared
        counter = t[at.COUNTERS]
        for layer in range(t[at.LAYERS]):
            record = array_at(t[at.LAYER_RECORDS], (t[at.LAYERS], at.LAYER_SIZE), np.int64)[layer]
            normalize(t, record[at.LN_1], x, normed, counter, thread)
            product(t, record[at.C_ATTN :], kind, normed, qkv, STORE, counter + at.STEP_BYTES, thread)
            attention(t, layer, keys_kind, qkv, shared, counter + 2 * at.STEP_BYTES, thread)
            product(t, record[at.ATTN_C_PROJ :], kind, shared, x, ADD, counter + 3 * at.STEP_BYTES, thread)
            normalize(t, record[at.LN_2], x, normed, counter + 4 * at.STEP_BYTES, thread)
            product(t, record[at.C_FC :], kind, normed, inner, GELU, counter + 5 * at.STEP_BYTES, thread)
            product(t, record[at.MLP_C_PROJ :], kind, inner, x, ADD, counter + 6 * at.STEP_BYTES, thread)
            counter += at.STEPS_OF_LAYER * at.STEP_BYTES
        first, last = share(m, t[at.THREADS], thread)
        layer_norm(x, array_at(t[at.FINAL_NORM], (2, t[at.N_EMBD]), np.float32), epsilon_of(t), shared, first, last)
        wait_for_all(counter, t[at.THREADS])

    def multiply_one_matrix(table: int, thread: int) -> None:
        """Multiply X (ROWS, WIDTH) by the matrix MATRIX into OUT (ROWS, out)."""
        t = array_at(table, (at.SIZE,), np.int64)
        record = array_at(t[at.MATRIX], (at.MATRIX_SIZE,), np.int64)
        x = array_at(t[at.X], (t[at.ROWS], t[at.WIDTH]), np.float32)
        y = array_at(t[at.OUT], (t[at.ROWS], record[at.OUTPUTS]), np.float32)
        product(t, record, head_kind, x, y, STORE, t[at.COUNTERS], thread)

    return {"forward": called(forward), "multiply": called(multiply_one_matrix), "read_memory": called(read_memory)}


def read_memory(table: int, thread: int) -> None:
    """Read the ROWS numbers at X, int64, as fast as possible. OUT receives a sum for each thread, int64."""
    t = array_at(table, (at.SIZE,), np.int64)
    first, last = share(t[at.ROWS], t[at.THREADS], thread)
    numbers, total = array_at(t[at.X], (t[at.ROWS],), np.int64), 0
    for i in range(first, last):
        total += numbers[i]
    array_at(t[at.OUT], (t[at.THREADS],), np.int64)[thread] = total
    wait_for_all(t[at.COUNTERS], t[at.THREADS])


@inlined
def epsilon_of(t: Any) -> Any:
    return array_at(t[at.EPSILON], (1,), np.float32)[0]


@called
def normalize(t: Any, norm: int, x: Any, out: Any, counter: int, thread: int) -> None:
    """Write the layer norm of x to `out`. Each thread normalizes a single row for itself, instead of waiting for it."""
    m, threads = t[at.ROWS], t[at.THREADS]
    weights = array_at(norm, (2, t[at.N_EMBD]), np.float32)
    if m == 1:
        layer_norm(x, weights, epsilon_of(t), out, 0, 1)
    else:
        first, last = share(m, threads, thread)
        layer_norm(x, weights, epsilon_of(t), out, first, last)
        wait_for_all(counter, threads)


@called
def attention(t: Any, layer: int, kind: Any, qkv: Any, out: Any, counter: int, thread: int) -> None:
    """Store the keys and values of the new tokens, then attend. Uses three counters."""
    heads, threads, C = t[at.HEADS], t[at.THREADS], t[at.N_EMBD]
    addresses = array_at(t[at.CACHE_ADDRESSES], (t[at.LAYERS], 2), np.int64)[layer]
    shape = (t[at.CACHE_ROWS], heads, t[at.CAPACITY], t[at.KEY_SIZE])
    keys, values = array_at(addresses[0], shape, kind), array_at(addresses[1], shape, kind)
    blocks, tasks = array_at(t[at.BLOCKS], (t[at.N_BLOCKS], at.BLOCK_SIZE), np.int64), t[at.N_BLOCKS] * heads
    first, last = share(tasks, threads, thread)
    store_keys_values(C, qkv, blocks, keys, values, first, last)
    wait_for_all(counter, threads)
    scratch_at = own_memory(t, thread) + t[at.OWN_SCRATCH]
    scratch = array_at(scratch_at, ((t[at.OWN_BYTES] - t[at.OWN_SCRATCH]) // 4,), np.float32)
    task = next_tasks(counter + at.COUNTER_BYTES, 1)
    while task < tasks:
        attend(C, qkv, blocks, keys, values, out, task, task + 1, scratch)
        task = next_tasks(counter + at.COUNTER_BYTES, 1)
    wait_for_all(counter + 2 * at.COUNTER_BYTES, threads)
