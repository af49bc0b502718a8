"""Inference on a CPU: loops over packed weights, compiled by Numba. A layer reads and writes activations in fp32.

How a matrix is stored
----------------------
A linear layer has weights w (out, in), row by row. `out` is padded to a multiple of 16, `in` to one of 64, with zeros.
One step of a loop reads these bytes of a row (`MatrixRows.weights`):

    fp32   32 bytes    w0     w1     w2   ...  w7       8 weights, 4 bytes each
    fp16   16 bytes    w0  w1  w2  ...  w7              8 weights, 2 bytes each, converted to fp32 (bf16 likewise)
    int8   16 bytes    w0 w1 w2 w3  ...  w15            16 weights, converted to int16; one scale for each row
    int4   16 bytes    byte j holds w[j] + 8            a group of 32 weights, converted to int16,
                       in its lower four bits and       with one scale, in fp16, in the array `groups`
                       w[j + 16] + 8 in the upper       (out, in / 32)

Weights in fp32, fp16 and bf16 are multiplied by activations in fp32, eight at a time. Weights in int8 and int4 are
multiplied by activations that are rounded to int16, with one scale for each row of activations. One instruction
multiplies 16 pairs of int16 and adds neighbouring products, which gives 8 sums in int32 (`multiply_pairs`).

Why there are three products
----------------------------
y (m, out) = x (m, in) @ w.T is computed in three ways. A parallel task computes 16 outputs, of up to 128 rows.

    one row     m = 1. Decoding reads every weight once for few multiplications, so memory bandwidth limits it.
                A loop multiplies one row of w by x. It adds to several vectors in turn, so that no addition has to
                wait for the one before it.
    few rows    A loop multiplies a tile, 2 rows of w by 4 rows of x, so that each weight that was read and converted
                is used four times:

                              w[i]        w[i + 1]
                    x[r]      sum 0       sum 4
                    x[r + 1]  sum 1       sum 5
                    x[r + 2]  sum 2       sum 6
                    x[r + 3]  sum 3       sum 7

    many rows   Sequences of 32 tokens or more, with weights in fp16, bf16 or int4 (matmul_int16). Arithmetic limits the
                speed, and int16 gives twice as many products as fp32. 16 rows of w are rounded to int16
                and transposed into a panel in the processor's cache. Up to 128 rows of x, rounded to int16, are
                multiplied by it, 4 at a time. Weights in int8 need no panel: they become int16 in the tile, too.

A panel (in / 2, 16) consists of pairs, each of two neighbouring weights in int16. A row of it has the pairs of 16
outputs side by side. One load takes 8 pairs; the matching pair of x is copied 8 times:

        panel[k]     w0[2k] w0[2k+1] | w1[2k] w1[2k+1] | w2[2k] w2[2k+1] | ... | w15[2k] w15[2k+1]
        x pair k      x[2k]  x[2k+1] |  x[2k]  x[2k+1] |  x[2k]  x[2k+1] | ...
                     --------------- + --------------- + ---------------
        adds to         sum of w0    |    sum of w1    |    sum of w2    | ...

These sums are in int32. After each segment of 16 activations, they are multiplied by its scale and added in fp32.

How attention reads the cache
-----------------------------
Keys and values of a layer are (B, H, S, D), in fp32, with D padded to a multiple of 8. The new tokens are divided into
pieces, each with a prefix of earlier tokens: see `model.pieces.Piece`. For a token t of a piece:

    keys[cache_row, h]     ... [  prefix  ] ... [ piece up to t | t | rest of the piece ] ...
    t attends to               [  prefix  ]     [ piece up to t | t ]

In generation, the prefix is the text so far and the piece follows it directly. In a packed row, several sequences may
share a prefix. A parallel task computes one head of one piece, four queries at a time.

How compiled loops are kept
---------------------------
The first use of a loop compiles it for this processor, which takes some seconds for all loops of a precision. The
machine code is written to the user's cache directory, under a name that is the digest of the sources, the versions and
the argument types. A later process reads it from there. It ignores files that other users could have written, because
it executes them.

Files in reading order: packed_layout, weight_packing, huge_pages (packed weights and their memory); block, matmul,
attention, elementwise (a forward pass); dot_kernels, matmul_int16, llvm_simd (the innermost loops); compiling,
compiled_store.
"""
