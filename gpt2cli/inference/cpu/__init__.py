"""Inference on a CPU: compiled loops over packed weights. A layer reads and writes activations in fp32.

How a matrix is stored
----------------------
A linear layer has weights w (out, in), row by row. `out` is padded to a multiple of 16, `in` to one of 64, with zeros.
One step of a loop reads these bytes of a row (`MatrixRows.weights`). LANES is the number of fp32 in a vector: 16 with
AVX-512, else 8.

    fp32   w0     w1     w2   ...         LANES weights, 4 bytes each
    fp16   w0  w1  w2  ...                LANES weights, 2 bytes each, converted to fp32 (bf16 likewise)
    int8   w0 w1 w2 w3  ...               2 * LANES weights, converted to int16; one scale for each row
    int4   byte j holds w[j] + 8          a group of 32 weights, converted to int16, with one scale, in fp16,
           in its lower four bits and     in the array `groups` (out, in / 32)
           w[j + 16] + 8 in the upper

Weights in fp32, fp16 and bf16 are multiplied by activations in fp32. Weights in int8 and int4 are multiplied by
activations that are rounded to int16, with one scale for each row of activations. One instruction multiplies pairs of
int16 and adds neighbouring products, which gives half as many sums in int32 (`multiply_pairs`).

Why there are three products
----------------------------
y (m, out) = x (m, in) @ w.T is computed in three ways, each by blocks of 16 outputs, which the threads share out.

    one row     m = 1. Decoding reads every weight once for few multiplications, so memory bandwidth limits it.
                A loop multiplies one row of w by x. It adds to two vectors in turn, so that no addition has to
                wait for the one before it.
    few rows    A loop multiplies a tile of 4 rows of x by some rows of w, so that each weight that was read and
                converted is used four times:

                              w[i]        w[i + 1]
                    x[r]      sum 0       sum 4
                    x[r + 1]  sum 1       sum 5
                    x[r + 2]  sum 2       sum 6
                    x[r + 3]  sum 3       sum 7

                A row's results are bitwise those that it has as a single row.
    many rows   Sequences of 32 tokens or more (matmul_many_rows). Arithmetic limits the speed, and int16 gives twice
                as many products as fp32. Some columns of 2 * LANES rows of w are transposed into a panel in the
                processor's cache; those in fp16 and bf16 are rounded to int16. All rows of x, rounded to int16, are
                multiplied by it, some at a time. Weights in fp32 are not rounded, but transposed likewise.

A panel consists of pairs, each of two neighbouring weights in int16. A row of it has the pairs of 2 * LANES outputs
side by side. One load takes LANES pairs; the matching pair of x is copied LANES times:

        panel[k]     w0[2k] w0[2k+1] | w1[2k] w1[2k+1] | w2[2k] w2[2k+1] | ... | w7[2k] w7[2k+1]
        x pair k      x[2k]  x[2k+1] |  x[2k]  x[2k+1] |  x[2k]  x[2k+1] | ...
                     --------------- + --------------- + ---------------
        adds to         sum of w0    |    sum of w1    |    sum of w2    | ...

These sums are in int32. After each segment of 32 or 64 activations, they are multiplied by its scale and added in fp32.

How attention reads the cache
-----------------------------
Keys and values of a layer are (B, H, S, D), in fp16, or in fp32 beside weights in fp32, with D padded to whole vectors.
The new tokens are divided into pieces, each with a prefix of earlier tokens: see `model.pieces.Piece`. For a token t of
a piece:

    keys[cache_row, h]     ... [  prefix  ] ... [ piece up to t | t | rest of the piece ] ...
    t attends to               [  prefix  ]     [ piece up to t | t ]

In generation, the prefix is the text so far and the piece follows it directly. In a packed row, several sequences may
share a prefix. A parallel task computes one head of one piece, four queries at a time.

How compiled loops are kept
---------------------------
The first use of a precision compiles its loops for this processor, which takes a second or two (`compiler`). The
machine code is written to the user's cache directory, under a name that is the digest of the sources, LLVM's version
and the processor. A later process reads it from there. It ignores files that other users could have written, because it
executes them.

How threads share a pass
------------------------
Every thread runs the whole pass (`entry_points`) with the same table of addresses and sizes. A step is divided into
tasks; each thread takes the next task from a shared counter. A barrier ends the step.

Files in reading order: packed_layout, weight_packing, huge_pages (packed weights and their memory); entry_points,
products, shared_memory (a pass, as every thread runs it); pass_table, passes, thread_team (its tables, its memory and
its threads); matmul, matmul_many_rows, attention, elementwise (the parts of a layer); row_products, panels,
rounded_rows, attention_kernels, epilogue, vector_math, llvm_simd (the innermost loops); compiler, compiling,
compiled_store (from Python to machine code).
"""
