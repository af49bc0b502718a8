"""Triton kernels of the residual stream x (B, C), which is fp32: embedding and layer norm."""

import triton
import triton.language as tl

from gpt2cli.inference.gpu.triton_overlap import let_next_start, prefetch, wait_for_previous


@triton.jit
def load_vector(pointer, i, N):
    """Elements i of a vector (N,), in fp32. Those beyond its end are zeros."""
    return tl.load(pointer + i, mask=i < N, other=0.0).to(tl.float32)


@triton.jit
def layer_norm(x, gain, shift, k, K: tl.constexpr, EPS: tl.constexpr):
    """Layer norm of the first K elements of x. k counts the elements of x, gain and shift, which are zeros beyond K."""
    centered = tl.where(k < K, x - tl.sum(x, axis=0) / K, 0.0)
    scale = tl.rsqrt(tl.sum(centered * centered, axis=0) / K + EPS)
    return centered * scale * gain + shift


@triton.jit
def embed_kernel(tokens, lengths, wte, wpe, x, C: tl.constexpr, PDL: tl.constexpr):
    """Write the embeddings x (B, C) of tokens (B,) at positions lengths (B,). Grid (B,)."""
    let_next_start(PDL)
    row = tl.program_id(0)
    c = tl.arange(0, triton.next_power_of_2(C))
    wait_for_previous(PDL)
    token = load_vector(wte + tl.load(tokens + row).to(tl.int64) * C, c, C)
    position = load_vector(wpe + tl.load(lengths + row) * C, c, C)
    tl.store(x + row * C + c, token + position, mask=c < C)


@triton.jit
def norm_kernel(
    x, parts, bias, gain, shift, out, ahead,
    B, C: tl.constexpr, EPS: tl.constexpr,
    SPLITS: tl.constexpr, AHEAD: tl.constexpr, PROGRAMS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Add the parts (SPLITS, B, C) of a product and its bias to x (B, C), then write the norm of x to out. Grid (B,).

    SPLITS may be 0. The kernel also fetches the first AHEAD bytes of the matrix `ahead` into the L2 cache.
    """
    let_next_start(PDL)
    row = tl.program_id(0)
    c = tl.arange(0, triton.next_power_of_2(C))
    if PDL:
        prefetch(ahead, AHEAD, row, PROGRAMS)
    scale = load_vector(gain, c, C)
    offset = load_vector(shift, c, C)
    wait_for_previous(PDL)
    v = load_vector(x + row * C, c, C)
    if SPLITS > 0:
        v += load_vector(bias, c, C)
        for split in tl.static_range(SPLITS):
            v += load_vector(parts + (split * B + row) * C, c, C)
        tl.store(x + row * C + c, v, mask=c < C)
    normed = layer_norm(v, scale, offset, c, C, EPS)
    tl.store(out + row * C + c, normed.to(out.dtype.element_ty), mask=c < C)
