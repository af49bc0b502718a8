"""Many texts to tokens, in parallel."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import torch

from gpt2cli.tokenizer import encode_plain

LONGEST_TOKEN = 128
"""Bytes of the longest token, and so characters at most: n tokens never hold more than 128 n characters."""


def encode_many(texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each text; `<|endoftext|>` in them is plain text. In as many threads as torch uses."""
    threads = torch.get_num_threads()
    # a few large portions: handing each text to the threads by itself would take as long as the work
    share = max(1, -(-len(texts) // (4 * threads)))
    portions = [texts[start : start + share] for start in range(0, len(texts), share)]
    with ThreadPoolExecutor(threads) as pool:
        return [*chain.from_iterable(pool.map(_encode_some, portions))]


def _encode_some(texts: Sequence[str]) -> list[list[int]]:
    return [*map(encode_plain, texts)]
