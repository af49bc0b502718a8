"""Reading text files in UTF-8, and encoding many texts as tokens in parallel."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TypeVar

import torch

from gpt2cli.checkpoints.files import looks_like
from gpt2cli.data.gzip_files import open_binary
from gpt2cli.errors import DataError
from gpt2cli.tokenizer import encode_plain
from gpt2cli.untrusted import is_utf16

BOM = b"\xef\xbb\xbf"

LONGEST_TOKEN = 128
"""Bytes of the longest token. So n tokens hold at most 128 n characters."""
BATCH, BATCH_CHARACTERS = 1000, 2**22
"""The most items of a batch, and about the most characters: as Python integers, tokens take much memory."""

T = TypeVar("T")


def read_utf8(path: Path) -> str:
    """A file's text without a byte order mark. Raises DataError, with the byte, if the file is not UTF-8."""
    with open_binary(path) as file:
        content = file.read()
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


def batches(items: Iterable[T], characters_of: Callable[[T], int]) -> Iterator[list[T]]:
    """The items in batches of at most BATCH items, each of about BATCH_CHARACTERS at most."""
    batch: list[T] = []
    size = 0
    for item in items:
        batch.append(item)
        size += characters_of(item)
        if len(batch) >= BATCH or size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encode_many(texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each text, in which `<|endoftext|>` is plain text. Uses as many threads as torch."""
    threads = torch.get_num_threads()
    # a few large portions: passing single texts to the threads would take as long as the work
    share = max(1, -(-len(texts) // (4 * threads)))
    portions = [texts[start : start + share] for start in range(0, len(texts), share)]
    with ThreadPoolExecutor(threads) as pool:
        return [*chain.from_iterable(pool.map(lambda portion: [*map(encode_plain, portion)], portions))]
