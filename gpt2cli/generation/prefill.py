"""The two kinds of forward passes in generation: the prefill of prompts, and the step that decodes a token."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gpt2cli.inference.decoder import Decoder
from gpt2cli.model.cache import KVCache


def prefill(decoder: Decoder, contexts: Sequence[Sequence[int]], capacity: int) -> tuple[Tensor, KVCache]:
    """Read whole prompts in one pass. Returns the logits (B, V) of the token after each, and the cache.

    A prompt that occurs several times is read once.
    """
    distinct = list(dict.fromkeys(tuple(context) for context in contexts))
    cache = decoder.new_cache(len(distinct), capacity)
    longest = max(map(len, distinct))
    padded = [[*context, *[0] * (longest - len(context))] for context in distinct]
    hidden = decoder.hidden(torch.tensor(padded, device=decoder.device), cache)
    cache.lengths = [len(context) for context in distinct]
    last = hidden[torch.arange(len(distinct)), [length - 1 for length in cache.lengths]]
    logits = decoder.head(last)
    if len(distinct) < len(contexts):
        source = [distinct.index(tuple(context)) for context in contexts]
        cache.select(source)
        logits = logits[source]
    return logits, cache


def decode_next(
    decoder: Decoder, contexts: Sequence[Sequence[int]], cache: KVCache, draft: Sequence[int] = ()
) -> Tensor:
    """The logits (B, V) after the last token of each context. The cache holds all tokens before it.

    A batch of one may have a `draft` of the next tokens. The logits are then (1 + len(draft), V): also those after each
    token of the draft. A row that fills the window continues with the newer half of its tokens, which are read again:
    positions are absolute, so the keys and values in the cache would be wrong after a move.
    """
    for row, length in enumerate(cache.lengths):
        if length == decoder.config.block_size:
            _reread(decoder, contexts[row], cache, row)
    idx = torch.tensor([[context[-1], *draft] for context in contexts], device=decoder.device)
    return decoder.head(decoder.hidden(idx, cache).flatten(0, 1))


def _reread(decoder: Decoder, context: Sequence[int], cache: KVCache, row: int) -> None:
    """Replace a full row of the cache by the newer half of its tokens, except the last, which comes next."""
    fresh = newer_half(decoder, context)
    cache.lengths[row] = length = fresh.lengths[0]
    for mine, new in zip(cache.k + cache.v, fresh.k + fresh.v, strict=True):
        mine[row, :, :length] = new[0, :, :length]


def newer_half(decoder: Decoder, context: Sequence[int]) -> KVCache:
    """A cache with the newer half of a window's tokens, except the last. It is empty for a window of 1 to 3 tokens."""
    kept = context[-max(1, decoder.config.block_size // 2) : -1]
    return prefill(decoder, [kept], len(kept))[1] if kept else decoder.new_cache(1, 1)
