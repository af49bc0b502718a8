"""The decode step: a few new tokens behind those in the cache, with nothing done that need not be.

`GPT.hidden` says what is computed; this computes the same where there are one or a few new tokens in a row. At so few
queries, PyTorch's attention kernel costs more than the two small products that attention is made of.
"""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2cli.model.gpt import GPT, Block, KVCache


def step(model: GPT, idx: Tensor, cache: KVCache) -> Tensor:
    """The final hidden states (B, T, C) of new tokens `idx` (B, T), which the cache takes up.

    The cache must have room for them, and row b's may stand at most at position block_size - 1.
    """
    B, T = idx.shape
    start, end = cache.lengths[0], max(cache.lengths) + T
    if len(set(cache.lengths)) == 1:
        where = None
        positions = torch.arange(start, end, device=idx.device)
        mask = None if T == 1 else positions[:, None] < torch.arange(end, device=idx.device)
    else:
        positions = torch.tensor(cache.lengths, device=idx.device)[:, None] + torch.arange(T, device=idx.device)
        where = (torch.arange(B, device=idx.device)[:, None], positions)
        mask = (positions[:, :, None] < torch.arange(end, device=idx.device)).repeat_interleave(
            cache.k[0].shape[1], dim=0
        )
    x = model.wte(idx) + model.wpe(positions)
    for block, keys, values in zip(cast("Iterable[Block]", model.h), cache.k, cache.v, strict=True):
        x += _attend(block, x, keys, values, start, end, where, mask)
        mlp = block.mlp
        x += mlp.c_proj(F.gelu(mlp.c_fc(block.ln_2(x)), approximate="tanh"))
    cache.lengths = [length + T for length in cache.lengths]
    final: Tensor = model.ln_f(x)
    return final


def _attend(
    block: Block,
    x: Tensor,
    keys: Tensor,
    values: Tensor,
    start: int,
    end: int,
    where: tuple[Tensor, Tensor] | None,
    mask: Tensor | None,
) -> Tensor:
    """One block's attention: `mask`, (T, S) or (B * H, T, S), is True where a query must not look."""
    B, T, C = x.shape
    H, D = keys.shape[1], keys.shape[3]
    qkv = block.attn.c_attn(block.ln_1(x)).view(B, T, 3, H, D)
    q, k, v = qkv.unbind(2)  # (B, T, H, D) each
    if where is None:
        keys[:, :, start:end] = k.transpose(1, 2)
        values[:, :, start:end] = v.transpose(1, 2)
    else:
        rows, positions = where
        keys[rows, :, positions] = k
        values[rows, :, positions] = v
    q = (q * D**-0.5).transpose(1, 2).reshape(B * H, T, D)
    scores = torch.bmm(q, keys.flatten(0, 1)[:, :end].transpose(1, 2))  # (B * H, T, S)
    if mask is not None:
        scores.masked_fill_(mask, float("-inf"))
    y = torch.bmm(scores.softmax(dim=-1), values.flatten(0, 1)[:, :end])
    out: Tensor = block.attn.c_proj(y.view(B, H, T, D).transpose(1, 2).reshape(B, T, C))
    return out
