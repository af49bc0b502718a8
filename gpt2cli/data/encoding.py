"""Much text to tokens: in parallel, and in pieces that the tokenizer can take."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import torch

from gpt2cli.tokenizer import encoding

LONGEST_TOKEN = 128
"""Bytes of the longest token, and so characters at most: n tokens never hold more than 128 n characters."""
PIECE = 2**16
"""Characters after which a text is cut at the next good place ..."""
LONGEST_PIECE = 2 * PIECE
"""... or, if there is none, at any. The tokenizer's own limit is a run of about a million blanks, which kills it."""

# between a sign and a blank the tokenizer always cuts, so cutting there first changes nothing
_BEFORE_BLANK = re.compile(r"(?<=\S)[ \n]")


def encode_many(texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each text; `<|endoftext|>` in them is plain text. In as many threads as torch uses."""
    threads = torch.get_num_threads()
    # a few large portions: handing each text to the threads by itself would take as long as the work
    share = max(1, -(-len(texts) // (4 * threads)))
    portions = [texts[start : start + share] for start in range(0, len(texts), share)]
    with ThreadPoolExecutor(threads) as pool:
        return [*chain.from_iterable(pool.map(_encode_some, portions))]


def _encode_some(texts: Sequence[str]) -> list[list[int]]:
    encode = encoding().encode_ordinary  # lets go of Python's lock while it works
    return [[*chain.from_iterable(map(encode, pieces(text)))] if len(text) > PIECE else encode(text) for text in texts]


def pieces(text: str) -> Iterator[str]:
    """The text in pieces of at most LONGEST_PIECE characters, which give the same tokens as the whole.

    Only where more than PIECE characters follow each other without a blank after a sign is the cut arbitrary.
    """
    start = 0
    while len(text) - start > LONGEST_PIECE:
        found = _BEFORE_BLANK.search(text, start + PIECE, start + LONGEST_PIECE)
        end = found.start() if found else start + LONGEST_PIECE
        yield text[start:end]
        start = end
    yield text[start:] if start else text
