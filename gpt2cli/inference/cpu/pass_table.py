"""The tables of addresses and sizes that the compiled loops read. Python fills them, without Numba.

A table is an array of int64. The constants are the places in it.
"""

(
    THREADS,  # that run the pass
    COUNTERS,  # the address of the counters, which are 0
    SCRATCH,  # the address of a part for each thread
    SCRATCH_BYTES,  # of a thread's part
    LAYERS,
    LAYER_RECORDS,  # the address of a record for each layer
    CACHE_RECORDS,  # the address of two addresses for each layer: its keys and values
    FINAL_NORM,  # the address of its weight and bias
    EPSILON,  # the address of layer norm's epsilon, fp32
    N_EMBD,
    ROWS,  # of activations, with those that pad
    IS_MANY,  # whether the sequences are long enough for the products of many rows
    X,  # the address of the residual stream (ROWS, padded n_embd), fp32
    NORMED,  # the same for its layer norm and for attention's output
    QKV,  # the same for queries, keys and values (ROWS, padded 3 * n_embd)
    INNER,  # the same for the MLP's inner activations (ROWS, padded 4 * n_embd)
    PREPARED,  # the same for the activations that a product of many rows takes, and `round_rows` writes
    STEPS,  # the scales of PREPARED
    HEADS,
    KEY_SIZE,
    CACHE_ROWS,
    CAPACITY,
    PIECES,
    PIECE_RECORDS,  # the address of the table of pieces
    READS_NEW,  # whether pieces attend to tokens of other pieces of this pass
    SIZE,
) = range(26)

(WEIGHTS, GROUPS, SCALE, BIAS, STEP, OUTPUTS, WIDTH, KIND, MATRIX_SIZE) = range(9)
"""The record of a matrix: the addresses of its arrays, its padded sizes, and the index of its type in KINDS."""

LN_1, LN_2, C_ATTN = range(3)
ATTN_C_PROJ, C_FC, MLP_C_PROJ, LAYER_SIZE = (C_ATTN + n * MATRIX_SIZE for n in range(1, 5))
"""The record of a layer: the addresses of its norms, and the records of its four matrices."""

KINDS = {"fp32": ("float32",), "fp16": ("uint16",), "bf16": ("int16",), "int8": ("int8",), "int4": ("uint8", "int8")}
"""The types of the arrays of weights, by precision. In 4 bits, the embedding and the head are in 8."""
