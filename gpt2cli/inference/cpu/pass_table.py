"""The tables of addresses and sizes that the compiled loops read. `passes.py` fills them.

A table is an array of int64. The constants are places in it.
"""

from typing import Any

import numpy as np

(
    THREADS,  # that run the loop
    COUNTERS,  # the address of the counters, which are 0
    OWN,  # the address of a part of memory for each thread
    OWN_BYTES,  # of such a part, which begins with a row of WIDTH numbers in fp32
    OWN_INTEGERS,  # where in a part there is a row of INNER_WIDTH numbers in int16
    OWN_STEPS,  # where in a part there are the scales of that row
    OWN_SCRATCH,  # where in a part the memory of attention and of the products of many rows begins
    LAYERS,
    LAYER_RECORDS,  # the address of a record for each layer
    CACHE_ADDRESSES,  # the address of two addresses for each layer: its keys and values
    FINAL_NORM,  # the address of its weight and bias
    EPSILON,  # the address of layer norm's epsilon, fp32
    N_EMBD,
    WIDTH,  # n_embd, padded
    QKV_WIDTH,  # 3 * n_embd, padded
    INNER_WIDTH,  # 4 * n_embd, padded
    ROWS,  # of activations, with those that pad
    IS_MANY,  # whether the sequences are long enough for the products of many rows
    X,  # the address of the residual stream (ROWS, WIDTH), fp32
    NORMED,  # of its layer norm, and of attention's output
    QKV,  # of queries, keys and values (ROWS, QKV_WIDTH), fp32
    INNER,  # of the MLP's inner activations (ROWS, INNER_WIDTH), fp32
    PREPARED,  # of activations that are rounded to int16
    STEPS,  # of the scales of PREPARED, fp32
    HEADS,
    KEY_SIZE,
    CACHE_ROWS,
    CAPACITY,
    BLOCKS,  # the address of the blocks of queries
    N_BLOCKS,
    MATRIX,  # the address of the record of a single matrix
    OUT,  # the address of its products
    SIZE,
) = range(33)

(
    WEIGHTS,  # the address
    WEIGHT_COLUMNS,
    GROUPS,  # the address
    GROUP_ROWS,
    GROUP_COLUMNS,
    SCALE,  # the address
    BIAS,  # the address
    STEP,  # the address
    OUTPUTS,
    MATRIX_SIZE,
) = range(10)
"""The record of a matrix."""

LN_1, LN_2, C_ATTN = range(3)
ATTN_C_PROJ, C_FC, MLP_C_PROJ, LAYER_SIZE = (C_ATTN + n * MATRIX_SIZE for n in range(1, 5))
"""The record of a layer: the addresses of its norms, and the records of its four matrices."""

COUNTER_BYTES = 64
"""Bytes from one counter to the next: a cache line, so that threads with different counters do not slow each other."""
COUNTERS_OF_STEP, STEPS_OF_LAYER = 3, 7
STEP_BYTES = COUNTERS_OF_STEP * COUNTER_BYTES
"""Bytes of the counters of one step of a layer: of a norm, a product or attention."""
BLOCK_SIZE = 8
"""The fields of a block of `attention_blocks`."""


def cache_type(precision: str) -> type[np.floating[Any]]:
    """The type of keys and values: fp16, unless the weights are in fp32."""
    return np.float32 if precision == "fp32" else np.float16
