"""The GPU kernels of one decode step, in Triton: B rows, one new token each. `fused_step` puts them in order.

A decode step of one row reads every weight once and computes little, so it lasts as long as the memory needs. A small
model's layer takes a few microseconds, which is no longer than a kernel's start and end take. Two means keep the memory
busy in between. First, kernels start early (programmatic dependent launch, Hopper and later): a kernel starts while the
previous one still computes, and loads its weights, which do not depend on the previous one. `PDL` says when a kernel
lets the next one start: 0 when it ends, 1 when the previous kernel has ended, 2 when it starts. Second, a kernel that
reads few bytes fetches the next kernel's weights into the L2 cache (`prefetch`).

One rule makes an early start correct. Every program of every kernel calls `wait_for_previous`, which returns when all
previous kernels have ended. Before this call a kernel reads only weights and results of earlier steps, and writes
nothing. The first kernel of a step does not start early, so earlier steps have ended by then.

The residual stream x is fp32, (B, C). Matrices are as nn.Linear holds them, (N, K): outputs, inputs. Sums are in fp32.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

LOWEST = tl.constexpr(-1e30)
"""Below every score, and finite: the difference of two such is a number."""
LINE = tl.constexpr(128)
"""Bytes of a line of the L2 cache."""


@triton.jit
def let_next_start(PDL: tl.constexpr):
    if PDL == 2:
        gdc_launch_dependents()


@triton.jit
def wait_for_previous(PDL: tl.constexpr):
    if PDL:
        gdc_wait()
    if PDL == 1:
        gdc_launch_dependents()


@triton.jit
def prefetch(w, BYTES: tl.constexpr, program, PROGRAMS: tl.constexpr):
    """Fetch this program's share of a matrix into the L2 cache."""
    lines: tl.constexpr = (BYTES + LINE - 1) // LINE
    share: tl.constexpr = (lines + PROGRAMS - 1) // PROGRAMS
    line = program * share + tl.arange(0, triton.next_power_of_2(share))
    line = tl.minimum(line, tl.minimum((program + 1) * share, lines) - 1)
    address = (w + line * (LINE // (w.dtype.element_ty.primitive_bitwidth // 8))).to(tl.int64)
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [address], dtype=tl.int32, is_pure=False, pack=1
    )


@triton.jit
def normalised(x, gain, shift, k, K: tl.constexpr, EPS: tl.constexpr):
    """Layer norm of the first K numbers of x (BLOCK_K,)."""
    inside = k < K
    off = tl.where(inside, x - tl.sum(x, axis=0) / K, 0.0)
    scale = tl.rsqrt(tl.sum(off * off, axis=0) / K + EPS)
    return off * scale * gain + shift


@triton.jit
def combined(parts, lse, row, B, k, K: tl.constexpr, D: tl.constexpr, SPLITS: tl.constexpr):
    """One row of attention's output, (BLOCK_K,), from that of each split of the sequence: parts (SPLITS, B, K)."""
    inside = k < K
    H: tl.constexpr = K // D
    most = tl.full(k.shape, LOWEST, tl.float32)
    for split in tl.static_range(SPLITS):
        most = tl.maximum(most, tl.load(lse + (split * B + row) * H + k // D, mask=inside, other=LOWEST))
    total = tl.zeros(k.shape, tl.float32)
    mixed = tl.zeros(k.shape, tl.float32)
    for split in tl.static_range(SPLITS):
        weight = tl.exp(tl.load(lse + (split * B + row) * H + k // D, mask=inside, other=LOWEST) - most)
        total += weight
        mixed += weight * tl.load(parts + (split * B + row) * K + k, mask=inside, other=0.0)
    return mixed / total


@triton.jit
def gelu(x):
    """The tanh form: (1 + tanh(z)) / 2 is sigmoid(2 z)."""
    return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


@triton.jit
def best_of(logits, n, N):
    """The largest of logits (..., BLOCK_N) and the first token id that has it. NaN counts as infinite."""
    logits = tl.where(logits == logits, logits, float("inf"))
    logits = tl.where(n < N, logits, -float("inf"))
    best = tl.max(logits, axis=-1)
    ids = tl.min(tl.where((logits == tl.expand_dims(best, -1)) & (n < N), n, 2147483647), axis=-1)
    return best, ids


@triton.jit
def embed_kernel(tokens, lengths, wte, wpe, x, C: tl.constexpr, BLOCK_C: tl.constexpr, PDL: tl.constexpr):
    """x (B, C) of tokens (B,) at positions lengths (B,). Grid (B,)."""
    let_next_start(PDL)
    row = tl.program_id(0)
    c = tl.arange(0, BLOCK_C)
    wait_for_previous(PDL)
    token = tl.load(wte + tl.load(tokens + row).to(tl.int64) * C + c, mask=c < C, other=0.0)
    place = tl.load(wpe + tl.load(lengths + row) * C + c, mask=c < C, other=0.0)
    tl.store(x + row * C + c, token.to(tl.float32) + place.to(tl.float32), mask=c < C)


@triton.jit
def linear_kernel(
    x,
    lse,
    gain,
    shift,
    w,
    bias,
    out,
    best,
    ids,
    N,
    K: tl.constexpr,
    D: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    NORM: tl.constexpr,
    SPLITS: tl.constexpr,
    BIAS: tl.constexpr,
    GELU: tl.constexpr,
    ADD: tl.constexpr,
    BEST: tl.constexpr,
    PDL: tl.constexpr,
):
    """A matrix times one vector: out (N,) from x (K,). Grid (N / BLOCK_N,).

    NORM: x is normalised first. SPLITS > 1: x is attention's parts (SPLITS, 1, K), to be combined first. ADD: the
    result is added to out. BEST: the largest number of each program and its index are written in place of
    out.
    """
    let_next_start(PDL)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    weights = tl.load(w + n[:, None] * K + k[None, :], mask=(k < K)[None, :] & (n < N)[:, None], other=0.0)
    if BIAS:
        start = tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)
    if NORM:
        scale = tl.load(gain + k, mask=k < K, other=0.0).to(tl.float32)
        offset = tl.load(shift + k, mask=k < K, other=0.0).to(tl.float32)
    wait_for_previous(PDL)
    if SPLITS > 1:  # noqa: SIM108, Triton compiles one branch only
        v = combined(x, lse, 0, 1, k, K, D, SPLITS)
    else:
        v = tl.load(x + k, mask=k < K, other=0.0).to(tl.float32)
    if NORM:
        v = normalised(v, scale, offset, k, K, EPS)
    y = tl.sum(weights.to(tl.float32) * v[None, :], axis=1)
    if BIAS:
        y += start
    if GELU:
        y = gelu(y)
    if ADD:
        y += tl.load(out + n, mask=n < N, other=0.0)
    if BEST:
        value, token = best_of(y, n, N)
        tl.store(best + tl.program_id(0), value)
        tl.store(ids + tl.program_id(0), token)
    else:
        tl.store(out + n, y.to(out.dtype.element_ty), mask=n < N)


@triton.jit
def matmul_kernel(
    x,
    w,
    bias,
    out,
    best,
    ids,
    B,
    N,
    K: tl.constexpr,
    SHARE: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BIAS: tl.constexpr,
    GELU: tl.constexpr,
    BEST: tl.constexpr,
    PDL: tl.constexpr,
    STAGES: tl.constexpr,
):
    """A matrix times B vectors: out (SPLITS, B, N) from x (B, K). Grid (N / BLOCK_N, SPLITS, B / BLOCK_B).

    Split i sums over SHARE inputs from i * SHARE; the kernel that reads the parts adds them up. BEST: the
    largest number of each row and program, (B, programs), and its index are written in place of out.
    """
    let_next_start(PDL)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    b = tl.program_id(2) * BLOCK_B + tl.arange(0, BLOCK_B)
    first = tl.program_id(1) * SHARE
    if PDL:
        LINES: tl.constexpr = triton.next_power_of_2(SHARE // 64 + 1)  # lines hold 64 16-bit weights
        at = first + tl.arange(0, LINES)[None, :] * 64
        address = (w + tl.minimum(n, N - 1)[:, None] * K + tl.minimum(at, K - 1)).to(tl.int64)
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [address], dtype=tl.int32, is_pure=False, pack=1
        )
    wait_for_previous(PDL)
    sums = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    for start in tl.range(0, SHARE, BLOCK_K, num_stages=STAGES):
        k = first + start + tl.arange(0, BLOCK_K)
        rows = tl.load(x + b[:, None] * K + k[None, :], mask=(b < B)[:, None] & (k < K)[None, :], other=0.0)
        weights = tl.load(w + n[None, :] * K + k[:, None], mask=(n < N)[None, :] & (k < K)[:, None], other=0.0)
        sums = tl.dot(rows, weights, sums, input_precision="ieee")
    if BIAS:
        sums += tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
    if GELU:
        sums = gelu(sums)
    if BEST:
        value, token = best_of(sums, n[None, :], N)
        programs = tl.num_programs(0)
        tl.store(best + b * programs + tl.program_id(0), value, mask=b < B)
        tl.store(ids + b * programs + tl.program_id(0), token, mask=b < B)
    else:
        place = (tl.program_id(1) * B + b).to(tl.int64)[:, None] * N + n[None, :]
        tl.store(out + place, sums.to(out.dtype.element_ty), mask=(b < B)[:, None] & (n < N)[None, :])


@triton.jit
def norm_kernel(
    x,
    parts,
    bias,
    gain,
    shift,
    out,
    ahead,
    B,
    C: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    SPLITS: tl.constexpr,
    AHEAD: tl.constexpr,
    PROGRAMS: tl.constexpr,
    PDL: tl.constexpr,
):
    """Add the parts (SPLITS, B, C) of a product and its bias to x (B, C); out (B, C) is x normalised. Grid (B,)."""
    let_next_start(PDL)
    row = tl.program_id(0)
    c = tl.arange(0, BLOCK_C)
    inside = c < C
    if PDL:
        prefetch(ahead, AHEAD, row, PROGRAMS)
    scale = tl.load(gain + c, mask=inside, other=0.0).to(tl.float32)
    offset = tl.load(shift + c, mask=inside, other=0.0).to(tl.float32)
    wait_for_previous(PDL)
    v = tl.load(x + row * C + c, mask=inside, other=0.0)
    if SPLITS > 0:
        v += tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)
        for split in tl.static_range(SPLITS):
            v += tl.load(parts + (split * B + row) * C + c, mask=inside, other=0.0)
        tl.store(x + row * C + c, v, mask=inside)
    tl.store(out + row * C + c, normalised(v, scale, offset, c, C, EPS).to(out.dtype.element_ty), mask=inside)


@triton.jit
def combine_kernel(
    parts, lse, out, B, C: tl.constexpr, D: tl.constexpr, BLOCK_C: tl.constexpr, SPLITS: tl.constexpr, PDL: tl.constexpr
):
    """out (B, C) of attention's parts (SPLITS, B, C). Grid (B,)."""
    let_next_start(PDL)
    c = tl.arange(0, BLOCK_C)
    wait_for_previous(PDL)
    row = tl.program_id(0)
    mixed = combined(parts, lse, row, B, c, C, D, SPLITS)
    tl.store(out + row * C + c, mixed.to(out.dtype.element_ty), mask=c < C)


@triton.jit
def see(q, k, v, seen, most, total, mixed):
    """Online softmax: include the keys and values (BLOCK_S, BLOCK_D) of the tokens that are `seen`."""
    score = tl.where(seen, tl.sum(q[None, :] * k.to(tl.float32), axis=1), -float("inf"))
    higher = tl.maximum(most, tl.max(score, axis=0))
    fade = tl.exp(most - higher)
    weight = tl.exp(score - higher)
    mixed = mixed * fade + tl.sum(weight[:, None] * v.to(tl.float32), axis=0)
    return higher, total * fade + tl.sum(weight, axis=0), mixed


@triton.jit
def attend_kernel(
    qkv,
    keys,
    values,
    lengths,
    out,
    lse,
    ahead,
    CAPACITY,
    H: tl.constexpr,
    D: tl.constexpr,
    SCALE: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SPLITS: tl.constexpr,
    AHEAD: tl.constexpr,
    PROGRAMS: tl.constexpr,
    PDL: tl.constexpr,
):
    """Write the new keys and values to the cache (B, H, CAPACITY, D), and attend to all tokens in it.

    qkv is (B, 3 C). Row b holds lengths[b] tokens before; each split takes its share of them, the first one the new
    token too. out is (SPLITS, B, C), with lse (SPLITS, B, H), the logarithm of each part's weight. Grid (B, H, SPLITS).
    """
    let_next_start(PDL)
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    B, C = tl.num_programs(0), H * D
    if PDL:
        prefetch(ahead, AHEAD, (row * H + head) * SPLITS + split, PROGRAMS)
    d = tl.arange(0, BLOCK_D)
    s = tl.arange(0, BLOCK_S)
    length = tl.load(lengths + row)
    share = tl.cdiv(length, SPLITS)
    start = split * share
    end = tl.minimum(start + share, length)
    base = (row * H + head).to(tl.int64) * CAPACITY * D
    place = base + (start + s)[:, None] * D + d[None, :]
    seen = start + s < end
    inside = seen[:, None] & (d < D)[None, :]
    k_first = tl.load(keys + place, mask=inside, other=0.0)
    v_first = tl.load(values + place, mask=inside, other=0.0)
    wait_for_previous(PDL)
    fresh = qkv + row * 3 * C + head * D + d
    q = tl.load(fresh, mask=d < D, other=0.0) * SCALE
    k_new = tl.load(fresh + C, mask=d < D, other=0.0).to(keys.dtype.element_ty)
    v_new = tl.load(fresh + 2 * C, mask=d < D, other=0.0).to(keys.dtype.element_ty)
    tl.store(keys + base + length * D + d, k_new, mask=(d < D) & (split == 0))
    tl.store(values + base + length * D + d, v_new, mask=(d < D) & (split == 0))
    most = tl.where(split == 0, tl.sum(q * k_new.to(tl.float32), axis=0), LOWEST)
    total = tl.where(split == 0, 1.0, 0.0)
    mixed = tl.where(split == 0, v_new.to(tl.float32), 0.0)
    most, total, mixed = see(q, k_first, v_first, seen, most, total, mixed)
    for at in tl.range(start + BLOCK_S, end, BLOCK_S, num_stages=2):
        place = base + (at + s)[:, None] * D + d[None, :]
        seen = at + s < end
        inside = seen[:, None] & (d < D)[None, :]
        k = tl.load(keys + place, mask=inside, other=0.0)
        v = tl.load(values + place, mask=inside, other=0.0)
        most, total, mixed = see(q, k, v, seen, most, total, mixed)
    some = tl.where(total > 0, total, 1.0)  # a split without tokens
    place = (split * B + row) * C + head * D + d
    tl.store(out + place, (mixed / some).to(out.dtype.element_ty), mask=d < D)
    if SPLITS > 1:
        tl.store(lse + (split * B + row) * H + head, tl.where(total > 0, most + tl.log(some), LOWEST))
