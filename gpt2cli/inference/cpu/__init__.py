"""Inference on a CPU: compiled loops over packed weights. A layer reads and writes activations in fp32.

The loops are written in Python. `compiler` translates them to machine code for this processor, with vectors of LANES
numbers in fp32: 16 on processors with AVX-512, else 8.

How a pass runs
---------------
`Passes.forward` fills a table of sizes and addresses (`pass_table`) and wakes the threads (`thread_team`). Each of them
calls one compiled function, which goes through all layers (`entry_points`). A layer has these steps:

    norm | product: queries, keys, values | attention | product | norm | product, GELU | product

The threads wait for each other after each step. Within a step, each takes the next task from a counter until none is
left: some outputs of a product, or a head of attention.

How a matrix is stored
----------------------
A linear layer has weights w (out, in), row by row. `out` is padded to a multiple of 16, `in` to one of 64, with zeros.
One step of a loop reads these numbers of a row (`MatrixRows.weights`):

    fp32   w0 w1 w2 ...    LANES weights of 4 bytes
    fp16   w0 w1 w2 ...    LANES weights of 2 bytes, converted to fp32 (bf16 likewise)
    int8   w0 w1 w2 ...    2 * LANES weights, converted to int16; one scale for each row
    int4   byte j holds w[j] + 8 in its lower four bits and w[j + 16] + 8 in the upper: a group of 32 weights,
           converted to two vectors of int16, with one scale, in fp16, in the array `groups` (out, in / 32)

Weights in fp32, fp16 and bf16 are multiplied by activations in fp32. Weights in int8 and int4 are multiplied by
activations that are rounded to int16, with one scale for each row of activations. One instruction multiplies pairs of
int16 and adds neighbouring products, which gives sums in int32 (`multiply_pairs`). With VNNI, the same instruction also
adds them to the sums so far.

Why there are three products
----------------------------
y (m, out) = x (m, in) @ w.T is computed in three ways.

    one row     m = 1. Decoding reads every weight once for few multiplications, so memory bandwidth limits it. A loop
                multiplies one row of w by x, and reads the weights in the order in which they lie in memory.
    few rows    A loop multiplies a tile, 4 rows of w (with 8 lanes, 2) by 4 rows of x, so that each weight that was
                read and converted is used four times:

                              w[i]        w[i + 1]    w[i + 2]    w[i + 3]
                    x[r]      sum 0       sum 4       sum 8       sum 12
                    x[r + 1]  sum 1       sum 5       sum 9       sum 13
                    x[r + 2]  sum 2       sum 6       sum 10      sum 14
                    x[r + 3]  sum 3       sum 7       sum 11      sum 15

                A row's results are bitwise the same in these two ways: `row_products` says how.
    many rows   Sequences of 32 tokens or more. Arithmetic limits the speed. Some rows of w are transposed into a panel,
                which stays in the processor's first cache. A loop multiplies tiles of 8 rows of x (with 8 lanes, 4) by
                it. Their sums stay in registers. All weights but those in fp32 become int16 in the panel, because int16
                gives twice as many products as fp32.

A panel is a chunk of w for 2 * LANES outputs: 128 rows of pairs, each of two neighbouring weights in int16, or of
weights in fp32. A row of it has the pairs of all outputs side by side. One load takes LANES pairs; the matching pair of
x is copied LANES times:

        panel[k]     w0[2k] w0[2k+1] | w1[2k] w1[2k+1] | w2[2k] w2[2k+1] | ...
        x pair k      x[2k]  x[2k+1] |  x[2k]  x[2k+1] |  x[2k]  x[2k+1] | ...
                     --------------- + --------------- + ---------------
        adds to         sum of w0    |    sum of w1    |    sum of w2    | ...

These sums are in int32. After each segment of 32 activations (int8: 64), they are multiplied by its scale and added in
fp32. The order of all additions depends only on the place in the row, so a row's result does not depend on the other
rows. While a panel is multiplied, the processor reads the weights of the next one into its second cache.

How attention reads the cache
-----------------------------
Keys and values of a layer are (B, H, S, D), in fp32 or fp16, with D padded to whole vectors. The new tokens are divided
into pieces, each with a prefix of earlier tokens: see `model.pieces.Piece`. For a token t of a piece:

    keys[cache_row, h]     ... [  prefix  ] ... [ piece up to t | t | rest of the piece ] ...
    t attends to               [  prefix  ]     [ piece up to t | t ]

In generation, the prefix is the text so far and the piece follows it directly. In a packed row, several sequences may
share a prefix. A task computes one head of up to 64 queries of a piece, four queries at a time (`attention_tasks`). The
order of every sum is fixed, so a query's result does not depend on the queries beside it.

How compiled loops are kept
---------------------------
The first use of a precision compiles its loops, which takes a second or two. The machine code is written to the user's
cache directory, under a name that is a digest of the sources, LLVM's version and the processor. A later process reads
it from there. It ignores files that other users could have written, because it executes them.

Files in reading order: packed_layout, weight_packing, huge_pages (packed weights and their memory); passes, pass_table,
thread_team, entry_points, products (a pass); matmul, row_products, epilogue (few rows); panel_sizes, matmul_many_rows,
rounded_rows, panels (many rows); attention_tasks, attention, attention_kernels; elementwise, vector_math, llvm_simd
(vectors); shared_memory; compiling, compiled_store, processor; compiler (from Python to machine code); cache,
thread_count, bandwidth (for the decoder).
"""
