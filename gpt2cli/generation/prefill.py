"""The two kinds of forward passes in generation: the prefill of prompts, and the step that decodes a token."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpt2cli.inference.decoder import Cache, Decoder


def prefill(decoder: Decoder, contexts: Sequence[Sequence[int]], capacity: int) -> tuple[Any, Cache]:
    """Read whole prompts in one pass. Returns the logits (B, V) of the token after each, and the cache.

    A prompt that occurs several times is read once.
    """
    distinct = list(dict.fromkeys(tuple(context) for context in contexts))
    cache = decoder.new_cache(len(distinct), capacity)
    longest = max(map(len, distinct))
    padded = [[*context, *[0] * (longest - len(context))] for context in distinct]
    hidden = decoder.hidden(np.array(padded, np.int64), cache)
    cache.lengths = [len(context) for context in distinct]
    last = hidden[list(range(len(distinct))), [length - 1 for length in cache.lengths]]
    logits = decoder.head(last)
    if len(distinct) < len(contexts):
        source = [distinct.index(tuple(context)) for context in contexts]
        cache.select(source)
        logits = logits[source]
    return logits, cache


def decode_next(decoder: Decoder, contexts: Sequence[Sequence[int]], cache: Cache, draft: Sequence[int] = ()) -> Any:
    """The logits (B, V) after the last token of each context. The cache holds all tokens before it.

    A batch of one may have a `draft` of the next tokens. The logits are then (1 + len(draft), V): also those after each
    token of the draft. A row that fills the window continues with the newer half of its tokens, which are read again:
    positions are absolute, so the keys and values in the cache would be wrong after a move.
    """
    for row, length in enumerate(cache.lengths):
        if length == decoder.config.block_size:
            # without the last token, which comes next
            cache.copy_row(row, newer_half(decoder, contexts[row]))
    idx = np.array([[context[-1], *draft] for context in contexts], np.int64)
    return decoder.head(decoder.hidden(idx, cache).reshape(idx.size, -1))


def newer_half(decoder: Decoder, context: Sequence[int]) -> Cache:
    """A cache with the newer half of a window's tokens, except the last. It is empty for a window of 1 to 3 tokens."""
    kept = context[-max(1, decoder.config.block_size // 2) : -1]
    return prefill(decoder, [kept], len(kept))[1] if kept else decoder.new_cache(1, 1)
