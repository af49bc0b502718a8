"""Triton kernels that choose the next tokens on the GPU, as `generation.sampling` does."""

import triton
import triton.language as tl

from gpt2cli.inference.gpu.triton_overlap import let_next_start, wait_for_previous

LOWEST_KEY = tl.constexpr(-(2**63))
"""Lower than the key of every logit."""


@triton.jit
def advance(token, best, row, B, tokens, lengths, slots, drawn, largest, LAST):
    """Write the row's token and its largest logit to the results, and make the token the next input.

    The length stops at LAST, the last place of the cache.
    """
    slot = tl.load(slots + row)
    tl.store(drawn + slot * B + row, token)
    tl.store(largest + slot * B + row, best)
    tl.store(slots + row, slot + 1)
    tl.store(tokens + row, token)
    tl.store(lengths + row, tl.minimum(tl.load(lengths + row) + 1, LAST))


@triton.jit
def greedy_kernel(
    best, ids, tokens, lengths, slots, drawn, largest,
    PROGRAMS, LAST, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Choose each row's most likely token, from the programs' largest logits (B, PROGRAMS) and their ids. Grid (B,)."""
    let_next_start(PDL)
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    wait_for_previous(PDL)
    values = tl.load(best + row * PROGRAMS + i, mask=i < PROGRAMS, other=-float("inf"))
    tokens_of = tl.load(ids + row * PROGRAMS + i, mask=i < PROGRAMS, other=2147483647)
    top = tl.max(values, axis=0)
    token = tl.min(tl.where(values == top, tokens_of, 2147483647), axis=0)
    advance(token, top, row, tl.num_programs(0), tokens, lengths, slots, drawn, largest, LAST)


@triton.jit
def top_keys_kernel(logits, keys, V, BLOCK_V: tl.constexpr, TOP: tl.constexpr, PDL: tl.constexpr):
    """Write the TOP largest of each BLOCK_V logits of (B, V) as sorted keys (B, programs, TOP). Grid (B, V / BLOCK_V).

    A larger logit has a larger key; among equal logits, the lower token id has. NaN counts as infinite.
    """
    let_next_start(PDL)
    row, part = tl.program_id(0), tl.program_id(1)
    v = part * BLOCK_V + tl.arange(0, BLOCK_V)
    wait_for_previous(PDL)
    value = tl.load(logits + row.to(tl.int64) * V + v, mask=v < V, other=0.0)
    value = tl.where(value == value, value, float("inf"))
    bits = value.to(tl.int32, bitcast=True)
    order = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)
    key = tl.where(v < V, order * 4294967296 + (0x7FFFFFFF - v), LOWEST_KEY)
    place = keys + (row * tl.num_programs(1) + part) * TOP + tl.arange(0, TOP)
    tl.store(place, tl.topk(key, TOP))


@triton.jit
def sample_kernel(
    keys, settings, uniform, tokens, lengths, slots, drawn, largest,
    COUNT, LAST, K: tl.constexpr, BLOCK: tl.constexpr, TOP: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Draw each row's token from the K largest of its keys (B, COUNT), in fp64. Grid (B,).

    Tokens that tie with the K-th are candidates too, as far as they are among the TOP >= K largest.
    `settings` holds (temperature, top_p, min_p), `uniform` (slots, B) the random numbers to draw with.
    """
    let_next_start(PDL)
    row, B = tl.program_id(0), tl.num_programs(0)
    i = tl.arange(0, BLOCK)
    wait_for_previous(PDL)
    key = tl.topk(tl.load(keys + row * COUNT + i, mask=i < COUNT, other=LOWEST_KEY), TOP)
    rank = tl.arange(0, TOP)
    order = (key >> 32).to(tl.int32)
    value = (order ^ ((order >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
    ids = 0x7FFFFFFF - (key & 0x7FFFFFFF).to(tl.int32)
    best = tl.max(tl.where(rank == 0, value, -float("inf")), axis=0)
    least = tl.max(tl.where(rank == K - 1, value, -float("inf")), axis=0)
    kept = (rank < K) | ((value == least) & (key > LOWEST_KEY))
    off = tl.where(kept, (value.to(tl.float64) - best.to(tl.float64)) / tl.load(settings), -float("inf"))
    p = tl.exp(off)
    p /= tl.sum(p, axis=0)
    p = tl.where(tl.cumsum(p, axis=0) - p >= tl.load(settings + 1), 0.0, p)
    p = tl.where(p < tl.load(settings + 2) * tl.max(p, axis=0), 0.0, p)
    p /= tl.sum(p, axis=0)
    draw = tl.load(uniform + tl.load(slots + row) * B + row)
    index = tl.sum((tl.cumsum(p, axis=0) <= draw).to(tl.int32), axis=0)
    index = tl.minimum(index, tl.sum((p > 0).to(tl.int32), axis=0) - 1)  # rounding may end the sum a little below 1
    token = tl.sum(tl.where(rank == index, ids, 0), axis=0)
    advance(token, best, row, B, tokens, lengths, slots, drawn, largest, LAST)
