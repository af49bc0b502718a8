"""A transformer block of GPT-2 on a CPU, for m new tokens, of one sequence or of several.

C = n_embd; the H heads have size D = C / H.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import config, set_num_threads

from gpt2cli.inference.cpu.attention import attend, store_keys_values
from gpt2cli.inference.cpu.elementwise import ADD, GELU, STORE, layer_norm
from gpt2cli.inference.cpu.matmul import matmul, padded_rows
from gpt2cli.inference.cpu.packed_layout import BLOCK_OUTPUTS, WIDTH_MULTIPLE, Matrix, rounded_up


class Weights(NamedTuple):
    """A block's weights."""

    ln_1: Any  # (2, C): weight, bias
    attn_c_attn: Matrix
    attn_c_proj: Matrix
    ln_2: Any
    mlp_c_fc: Matrix
    mlp_c_proj: Matrix


class Buffers(NamedTuple):
    """The residual stream, and memory for a block's intermediate results."""

    x: Any  # (m, C)
    normed: Any  # (m, C)
    qkv: Any  # (m, 3 * C)
    inner: Any  # (m, 4 * C)


def use_threads(count: int) -> None:
    """Divide the parallel loops among `count` threads, at most as many as the machine has."""
    set_num_threads(min(count, config.NUMBA_NUM_THREADS))


def make_buffers(m: int, n_embd: int) -> Buffers:
    """Buffers of zeros, padded as `matmul` needs them. What lies beyond a row's end must stay zero."""
    width, inner = rounded_up(n_embd, WIDTH_MULTIPLE), rounded_up(4 * n_embd, WIDTH_MULTIPLE)
    widths = (width, width, rounded_up(3 * n_embd, BLOCK_OUTPUTS), inner)
    return Buffers(*(np.zeros((padded_rows(m), width), np.float32) for width in widths))


def block(
    buffers: Buffers, pieces: Any, keys: Any, values: Any, weights: Weights, epsilon: float, sequence_length: int
) -> None:
    """Apply one block to the residual stream (m, C), in place.

    `keys` and `values` (B, H, S, D) are the layer's cache, which receives those of the new tokens. `pieces` says which
    tokens attend to which: see `Piece`. For `sequence_length`, see `matmul`.
    """
    x, normed, qkv, inner = buffers
    layer_norm(x, weights.ln_1, epsilon, normed)
    matmul(weights.attn_c_attn, normed, qkv, STORE, sequence_length)
    C = weights.ln_1.shape[1]
    store_keys_values(C, qkv, pieces, keys, values)
    attend(C, qkv, pieces, keys, values, normed)
    matmul(weights.attn_c_proj, normed, x, ADD, sequence_length)
    layer_norm(x, weights.ln_2, epsilon, normed)
    matmul(weights.mlp_c_fc, normed, inner, GELU, sequence_length)
    matmul(weights.mlp_c_proj, inner, x, ADD, sequence_length)
