"""GPT-2's block on a CPU, as `gpt.py` describes it, for a few new tokens or for whole texts.

m tokens, of whatever sequences; C = n_embd, H heads of size D = C / H.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import config, set_num_threads

from gpt2cli.inference.cpu.attention import attend
from gpt2cli.inference.cpu.dot_kernels import OUTS, ROWS, STRIDE
from gpt2cli.inference.cpu.elementwise import ADD, GELU, STORE, normalise
from gpt2cli.inference.cpu.matmul import Matrix, product, rounded_up


class Weights(NamedTuple):
    """A block's weights."""

    ln_1: Any  # (2, C): weight, bias
    attn_c_attn: Matrix
    attn_c_proj: Matrix
    ln_2: Any
    mlp_c_fc: Matrix
    mlp_c_proj: Matrix


class Buffers(NamedTuple):
    """The residual stream, and memory for what a block makes on its way."""

    x: Any  # (m, C)
    normed: Any  # (m, C)
    qkv: Any  # (m, 3 * C)
    inner: Any  # (m, 4 * C)


def use_threads(count: int) -> None:
    """How many threads the loops are divided among, at most as many as the machine has."""
    set_num_threads(min(count, config.NUMBA_NUM_THREADS))


def make_buffers(m: int, n_embd: int) -> Buffers:
    """Zeros, which what lies beyond a row's end must be; m is rounded up to what `product` takes."""
    widths = (rounded_up(n_embd, STRIDE), rounded_up(n_embd, STRIDE), 3 * n_embd, rounded_up(4 * n_embd, STRIDE))
    rows = 1 if m == 1 else rounded_up(m, ROWS)
    return Buffers(*(np.zeros((rows, rounded_up(width, OUTS)), np.float32) for width in widths))


def block(
    buffers: Buffers, pieces: Any, keys: Any, values: Any, weights: Weights, epsilon: float, together: int
) -> None:
    """Take the residual stream (m, C) through one block, in place.

    `keys` and `values` (B, H, S, D) are the cache, which takes up those of the new tokens; `pieces` say what may see
    what: see `attend`; `together`: see `product`.
    """
    x, normed, qkv, inner = buffers
    normalise(x, weights.ln_1, epsilon, normed)
    product(weights.attn_c_attn, normed, qkv, STORE, together)
    attend(weights.ln_1.shape[1], qkv, pieces, keys, values, normed)
    product(weights.attn_c_proj, normed, x, ADD, together)
    normalise(x, weights.ln_2, epsilon, normed)
    product(weights.mlp_c_fc, normed, inner, GELU, together)
    product(weights.mlp_c_proj, inner, x, ADD, together)
