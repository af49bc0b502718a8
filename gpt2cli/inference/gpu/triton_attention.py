"""Triton kernels of attention for one new token a row.

Several programs may share the cached tokens of a head, each for a split of the sequence. Each split writes its part of
the output, and `lse`, the logarithm of the sum of its exponentiated scores. The parts' average, weighted by exp(lse),
is the output (as in "Flash-Decoding for long-context inference", Dao et al. 2023).
"""

import triton
import triton.language as tl

from gpt2cli.inference.gpu.triton_overlap import let_next_start, prefetch, wait_for_previous

LOWEST = tl.constexpr(-1e30)
"""Lower than every score. It is finite, so that the difference of two of them is a number."""


@triton.jit
def combine_splits(parts, lse, row, B, k, K: tl.constexpr, D: tl.constexpr, SPLITS: tl.constexpr):
    """Elements k of a row of attention's output, from its parts (SPLITS, B, K) and lse (SPLITS, B, K / D)."""
    inside = k < K
    H: tl.constexpr = K // D
    highest = tl.full(k.shape, LOWEST, tl.float32)
    for split in tl.static_range(SPLITS):
        highest = tl.maximum(highest, tl.load(lse + (split * B + row) * H + k // D, mask=inside, other=LOWEST))
    total = tl.zeros(k.shape, tl.float32)
    mixed = tl.zeros(k.shape, tl.float32)
    for split in tl.static_range(SPLITS):
        weight = tl.exp(tl.load(lse + (split * B + row) * H + k // D, mask=inside, other=LOWEST) - highest)
        total += weight
        mixed += weight * tl.load(parts + (split * B + row) * K + k, mask=inside, other=0.0)
    return mixed / total


@triton.jit
def combine_kernel(parts, lse, out, B, C: tl.constexpr, D: tl.constexpr, SPLITS: tl.constexpr, PDL: tl.constexpr):
    """Write attention's output (B, C), combined from its parts (SPLITS, B, C). Grid (B,)."""
    let_next_start(PDL)
    c = tl.arange(0, triton.next_power_of_2(C))
    wait_for_previous(PDL)
    row = tl.program_id(0)
    mixed = combine_splits(parts, lse, row, B, c, C, D, SPLITS)
    tl.store(out + row * C + c, mixed.to(out.dtype.element_ty), mask=c < C)


@triton.jit
def load_tokens(cache, base, s, end, d, D: tl.constexpr):
    """Rows s < end and columns d < D of the head (S, D) that begins at `base` in the cache. The others are zeros."""
    place = base + s[:, None] * D + d[None, :]
    return tl.load(cache + place, mask=(s < end)[:, None] & (d < D)[None, :], other=0.0)


@triton.jit
def include_tokens(q, k, v, seen, highest, total, mixed):
    """Online softmax: include the keys k and values v (BLOCK_S, BLOCK_D) of the tokens that are `seen`."""
    score = tl.where(seen, tl.sum(q[None, :] * k.to(tl.float32), axis=1), -float("inf"))
    higher = tl.maximum(highest, tl.max(score, axis=0))
    fade = tl.exp(highest - higher)
    weight = tl.exp(score - higher)
    mixed = mixed * fade + tl.sum(weight[:, None] * v.to(tl.float32), axis=0)
    return higher, total * fade + tl.sum(weight, axis=0), mixed


@triton.jit
def attend_kernel(
    qkv, keys, values, lengths, out, lse, ahead,
    CAPACITY, H: tl.constexpr, D: tl.constexpr, SCALE: tl.constexpr, BLOCK_S: tl.constexpr,
    SPLITS: tl.constexpr, AHEAD: tl.constexpr, PROGRAMS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Write the new keys and values to the cache (B, H, CAPACITY, D), and attend to all tokens in it.

    qkv is (B, 3 C). The cache of row b holds lengths[b] tokens. Each split attends to its share of them, and split 0
    also to the new token. It writes out (SPLITS, B, C) and, if SPLITS > 1, lse (SPLITS, B, H). The kernel also fetches
    AHEAD bytes of the matrix `ahead` into the L2 cache. Grid (B, H, SPLITS).
    """
    let_next_start(PDL)
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    B, C = tl.num_programs(0), H * D
    if PDL:
        prefetch(ahead, AHEAD, (row * H + head) * SPLITS + split, PROGRAMS)
    d = tl.arange(0, triton.next_power_of_2(D))
    s = tl.arange(0, BLOCK_S)
    length = tl.load(lengths + row)
    share = tl.cdiv(length, SPLITS)
    start = split * share
    end = tl.minimum(start + share, length)
    base = (row * H + head).to(tl.int64) * CAPACITY * D
    k_first = load_tokens(keys, base, start + s, end, d, D)
    v_first = load_tokens(values, base, start + s, end, d, D)
    wait_for_previous(PDL)
    new = qkv + row * 3 * C + head * D + d
    q = tl.load(new, mask=d < D, other=0.0) * SCALE
    k_new = tl.load(new + C, mask=d < D, other=0.0).to(keys.dtype.element_ty)
    v_new = tl.load(new + 2 * C, mask=d < D, other=0.0).to(keys.dtype.element_ty)
    tl.store(keys + base + length * D + d, k_new, mask=(d < D) & (split == 0))
    tl.store(values + base + length * D + d, v_new, mask=(d < D) & (split == 0))
    highest = tl.where(split == 0, tl.sum(q * k_new.to(tl.float32), axis=0), LOWEST)
    total = tl.where(split == 0, 1.0, 0.0)
    mixed = tl.where(split == 0, v_new.to(tl.float32), 0.0)
    highest, total, mixed = include_tokens(q, k_first, v_first, start + s < end, highest, total, mixed)
    for at in tl.range(start + BLOCK_S, end, BLOCK_S, num_stages=2):
        k = load_tokens(keys, base, at + s, end, d, D)
        v = load_tokens(values, base, at + s, end, d, D)
        highest, total, mixed = include_tokens(q, k, v, at + s < end, highest, total, mixed)
    some = tl.where(total > 0, total, 1.0)  # a split without tokens has total 0
    place = (split * B + row) * C + head * D + d
    tl.store(out + place, (mixed / some).to(out.dtype.element_ty), mask=d < D)
    if SPLITS > 1:
        tl.store(lse + (split * B + row) * H + head, tl.where(total > 0, highest + tl.log(some), LOWEST))
