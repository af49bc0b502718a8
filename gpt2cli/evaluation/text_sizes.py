"""How many bytes and words a text's tokens stand for, for figures that do not depend on the tokenizer."""

import re
from array import array
from functools import cache

import torch
from torch import Tensor

from gpt2cli.config import VOCAB_SIZE
from gpt2cli.tokenizer import END_OF_TEXT_ID, encoding

_SPACES = [chr(code).encode() for code in range(0x3001) if chr(code).isspace()]
"""All of Unicode's white space, in UTF-8."""
_GAP = re.compile(b"(?:" + b"|".join(map(re.escape, _SPACES)) + b")+")


def sizes_of(text: str, tokens: Tensor) -> Tensor:
    """For each of a text's tokens, (T,): its UTF-8 bytes, and how many words begin in it, (T, 2) uint8.

    Words are what white space separates, as for `str.split`. The sums are the text's own bytes and words.
    """
    n_bytes = _bytes_of_tokens()[tokens.to(torch.int64)]
    content = text.encode()
    starts = array("q", [0, *(gap.end() for gap in _GAP.finditer(content))])
    if _GAP.match(content):
        del starts[0]  # the text begins with white space
    if starts and starts[-1] == len(content):
        starts.pop()  # it ends with white space
    if not starts:
        return torch.stack([n_bytes, torch.zeros_like(n_bytes)], dim=1).to(torch.uint8)
    begun_in = torch.searchsorted(n_bytes.cumsum(0), torch.frombuffer(starts, dtype=torch.int64), right=True)
    return torch.stack([n_bytes, torch.bincount(begun_in, minlength=len(tokens))], dim=1).to(torch.uint8)


@cache
def _bytes_of_tokens() -> Tensor:
    """(50257,) int64: how many bytes each token has. The end of text has none: it stands for no text."""
    lengths = torch.zeros(VOCAB_SIZE, dtype=torch.int64)
    lengths[:END_OF_TEXT_ID] = torch.tensor(
        [len(encoding().decode_single_token_bytes(token)) for token in range(END_OF_TEXT_ID)]
    )
    return lengths
