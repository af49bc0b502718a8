"""Reading text files in UTF-8, and encoding many texts as tokens in parallel."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import torch

from gpt2cli.checkpoints.files import looks_like
from gpt2cli.errors import DataError
from gpt2cli.tokenizer import encode_plain
from gpt2cli.untrusted import is_utf16

BOM = b"\xef\xbb\xbf"

LONGEST_TOKEN = 128
"""Bytes of the longest token. So n tokens hold at most 128 n characters."""


def read_utf8(path: Path) -> str:
    """A file's text without a byte order mark. Raises DataError, with the byte, if the file is not UTF-8."""
    content = path.read_bytes()
    start = len(BOM) if content.startswith(BOM) else 0
    try:
        text = str(memoryview(content)[start:], "utf-8")
        if not is_utf16(content):
            return text
        where = f"{path} is not UTF-8"
    except UnicodeDecodeError as error:
        where = f"{path} is not valid UTF-8 at byte {start + error.start}"
    guess = "UTF-16" if is_utf16(content) else looks_like(content[:512])
    raise DataError(f"{where} (looks like {guess}): convert it to UTF-8, or give another file")


def encode_many(texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each text, in which `<|endoftext|>` is plain text. Uses as many threads as torch."""
    threads = torch.get_num_threads()
    # a few large portions: passing single texts to the threads would take as long as the work
    share = max(1, -(-len(texts) // (4 * threads)))
    portions = [texts[start : start + share] for start in range(0, len(texts), share)]
    with ThreadPoolExecutor(threads) as pool:
        return [*chain.from_iterable(pool.map(_encode_some, portions))]


def _encode_some(texts: Sequence[str]) -> list[list[int]]:
    return [*map(encode_plain, texts)]
