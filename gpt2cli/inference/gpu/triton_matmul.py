"""Triton kernels of matrix products. Matrices are (N, K), outputs and inputs, as in nn.Linear. Sums are in fp32."""

import triton
import triton.language as tl

from gpt2cli.inference.gpu.triton_attention import combine_splits
from gpt2cli.inference.gpu.triton_overlap import let_next_start, prefetch_lines, wait_for_previous
from gpt2cli.inference.gpu.triton_residual import layer_norm, load_vector


@triton.jit
def gelu(x):
    """The tanh form: (1 + tanh(z)) / 2 is sigmoid(2 z)."""
    return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


@triton.jit
def largest_logit(logits, n, N):
    """The largest of logits (..., BLOCK_N) and the lowest token id n that has it. NaN counts as infinite."""
    logits = tl.where(logits == logits, logits, float("inf"))
    logits = tl.where(n < N, logits, -float("inf"))
    best = tl.max(logits, axis=-1)
    ids = tl.min(tl.where((logits == tl.expand_dims(best, -1)) & (n < N), n, 2147483647), axis=-1)
    return best, ids


@triton.jit
def matvec_kernel(
    x, lse, gain, shift, w, bias, out, best, ids,
    N, K: tl.constexpr, D: tl.constexpr, EPS: tl.constexpr, BLOCK_N: tl.constexpr,
    SPLITS: tl.constexpr, GELU: tl.constexpr, ADD: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """A matrix times one vector: out (N,) from x (K,). Grid (N / BLOCK_N,).

    With `gain` and `shift`, x goes through a layer norm first. With SPLITS > 1, x is attention's parts (SPLITS, 1, K),
    which are combined first. ADD: the result is added to `out`. With `best` and `ids`, each program writes its largest
    result and the index of that one, and `out` is not written.
    """
    let_next_start(PDL)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, triton.next_power_of_2(K))
    weights = tl.load(w + n[:, None] * K + k[None, :], mask=(k < K)[None, :] & (n < N)[:, None], other=0.0)
    if bias is not None:
        offset = load_vector(bias, n, N)
    if gain is not None:
        norm_gain = load_vector(gain, k, K)
        norm_shift = load_vector(shift, k, K)
    wait_for_previous(PDL)
    if SPLITS > 1:  # noqa: SIM108, Triton compiles one branch only
        v = combine_splits(x, lse, 0, 1, k, K, D, SPLITS)
    else:
        v = load_vector(x, k, K)
    if gain is not None:
        v = layer_norm(v, norm_gain, norm_shift, k, K, EPS)
    y = tl.sum(weights.to(tl.float32) * v[None, :], axis=1)
    if bias is not None:
        y += offset
    if GELU:
        y = gelu(y)
    if ADD:
        y += load_vector(out, n, N)
    if best is not None:
        value, token = largest_logit(y, n, N)
        tl.store(best + tl.program_id(0), value)
        tl.store(ids + tl.program_id(0), token)
    else:
        tl.store(out + n, y.to(out.dtype.element_ty), mask=n < N)


@triton.jit
def matmul_kernel(
    x, w, bias, out, best, ids,
    B, N, K: tl.constexpr, SHARE: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GELU: tl.constexpr, STAGES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """A matrix times B vectors: out (splits, B, N) from x (B, K). Grid (N / BLOCK_N, splits, B / BLOCK_B).

    Split i sums over SHARE inputs from i * SHARE on; `norm_kernel` adds the parts. With `best` and `ids`
    (B, N / BLOCK_N), each program writes its largest result of each row and the index of that one, and `out` is not
    written.
    """
    let_next_start(PDL)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    b = tl.program_id(2) * BLOCK_B + tl.arange(0, BLOCK_B)
    first = tl.program_id(1) * SHARE
    if PDL:
        LINES: tl.constexpr = triton.next_power_of_2(SHARE // 64 + 1)  # lines hold 64 16-bit weights
        at = first + tl.arange(0, LINES)[None, :] * 64
        prefetch_lines(w + tl.minimum(n, N - 1)[:, None] * K + tl.minimum(at, K - 1))
    wait_for_previous(PDL)
    sums = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    for start in tl.range(0, SHARE, BLOCK_K, num_stages=STAGES):
        k = first + start + tl.arange(0, BLOCK_K)
        rows = tl.load(x + b[:, None] * K + k[None, :], mask=(b < B)[:, None] & (k < K)[None, :], other=0.0)
        weights = tl.load(w + n[None, :] * K + k[:, None], mask=(n < N)[None, :] & (k < K)[:, None], other=0.0)
        sums = tl.dot(rows, weights, sums, input_precision="ieee")
    if bias is not None:
        sums += load_vector(bias, n, N)[None, :]
    if GELU:
        sums = gelu(sums)
    if best is not None:
        value, token = largest_logit(sums, n[None, :], N)
        programs = tl.num_programs(0)
        tl.store(best + b * programs + tl.program_id(0), value, mask=b < B)
        tl.store(ids + b * programs + tl.program_id(0), token, mask=b < B)
    else:
        place = (tl.program_id(1) * B + b).to(tl.int64)[:, None] * N + n[None, :]
        tl.store(out + place, sums.to(out.dtype.element_ty), mask=(b < B)[:, None] & (n < N)[None, :])
