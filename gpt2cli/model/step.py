"""The decode step: a few new tokens behind those in the cache, with nothing done that need not be.

`GPT.hidden` says what is computed; this computes the same where there are one or a few new tokens in a row. At so few
queries, PyTorch's attention kernel costs more than the two small products that attention is made of.
"""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2cli.model.gpt import GPT, Block, KVCache, LayerCache


def step(model: GPT, idx: Tensor, cache: KVCache) -> Tensor:
    """The final hidden states (B, T, C) of new tokens `idx` (B, T), which the cache takes up.

    The cache must have room for them, and row b's may stand at most at position block_size - 1.
    """
    T = idx.shape[1]
    positions, seen = cache.positions_and_mask(T)
    if seen is None and T > 1:
        seen = torch.ones(T, T, dtype=torch.bool, device=idx.device).tril()
    unseen = None if seen is None else ~seen
    x = model.wte(idx) + model.wpe(positions)
    for layer, block in enumerate(cast("Iterable[Block]", model.h)):
        x += _attend(block, x, (cache, layer), unseen)
        mlp = block.mlp
        x += mlp.c_proj(F.gelu(mlp.c_fc(block.ln_2(x)), approximate="tanh"))
    cache.lengths = [length + T for length in cache.lengths]
    final: Tensor = model.ln_f(x)
    return final


def _attend(block: Block, x: Tensor, past: LayerCache, unseen: Tensor | None) -> Tensor:
    """One block's attention; `unseen`, (T, S) or (B, 1, T, S), is True where a query must not look."""
    B, T, C = x.shape
    qkv = block.attn.c_attn(block.ln_1(x)).view(B, T, 3, block.attn.n_head, -1)
    q, k, v = qkv.transpose(1, 3).unbind(2)  # (B, H, T, D) each
    cache, layer = past
    keys, values = cache.append(layer, k, v)  # (B, H, S, D)
    q = (q * q.shape[3] ** -0.5).reshape(-1, T, q.shape[3])
    scores = torch.bmm(q, keys.flatten(0, 1).transpose(1, 2))  # (B * H, T, S)
    if unseen is not None:
        scores.view(B, -1, *scores.shape[1:]).masked_fill_(unseen, float("-inf"))
    y = torch.bmm(scores.softmax(dim=-1), values.flatten(0, 1))
    out: Tensor = block.attn.c_proj(y.view(B, -1, T, q.shape[2]).transpose(1, 2).reshape(B, T, C))
    return out
