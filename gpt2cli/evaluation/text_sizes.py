"""The bytes and words of a text's tokens, for scores that do not depend on the tokenizer."""

import re
from functools import cache

import torch
from torch import Tensor

from gpt2cli.tokenizer import END_OF_TEXT_ID, encoding

_SPACES = [chr(code).encode() for code in range(0x3001) if chr(code).isspace()]
"""All of Unicode's white space, in UTF-8."""
_LONG_SPACE = re.compile(b"|".join(space for space in _SPACES if len(space) > 1))
_IS_SPACE = torch.tensor([bytes([byte]) in _SPACES for byte in range(256)])


def sizes_of(text: str, tokens: Tensor) -> Tensor:
    """The sizes of a text's `tokens`, (T,): for each its UTF-8 bytes and the words that begin in it, (T, 2) uint8.

    Words are separated by white space, as in `str.split`. The sums are the bytes and the words of the text.
    """
    content = bytearray(text.encode())
    blank = _IS_SPACE[torch.frombuffer(content, dtype=torch.uint8).to(torch.int32)]
    for space in _LONG_SPACE.finditer(content):
        blank[space.start() : space.end()] = True
    begins = ~blank
    begins[1:] &= blank[:-1]
    n_bytes = _bytes_of_tokens()[tokens.to(torch.int64)]
    before = begins.cumsum(0)[n_bytes.cumsum(0) - 1]  # the words that have begun by the end of each token
    return torch.stack([n_bytes, before.diff(prepend=torch.zeros(1, dtype=torch.int64))], dim=1).to(torch.uint8)


@cache
def _bytes_of_tokens() -> Tensor:
    """The number of bytes of each token, (50257,) int64: 0 for the end of text."""
    lengths = [len(encoding().decode_single_token_bytes(token)) for token in range(END_OF_TEXT_ID)]
    return torch.tensor([*lengths, 0])
