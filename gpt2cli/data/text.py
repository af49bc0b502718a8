"""Plain text as training data: one stream of tokens, cut into blocks as long as the model's window.

The stream of some files is `<|endoftext|> file <|endoftext|> file ... <|endoftext|>`: each file begins as a text does
that the model writes, and has an end. A block holds up to block_size + 1 tokens and starts with the last token of the
block before, so that every token of a stream but its first is a target exactly once. The last block may be short.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from gpt2cli.config import DataConfig
from gpt2cli.data.dataset import TokenDataset, from_sequences
from gpt2cli.data.encoding import encode_many, pieces
from gpt2cli.data.records import read_utf8
from gpt2cli.data.splits import sample, sizes, split
from gpt2cli.errors import DataError
from gpt2cli.tokenizer import END_OF_TEXT_ID

BATCH = 16
"""Pieces of a text whose tokens are held as Python's numbers at a time."""


@dataclass(frozen=True, eq=False)
class Text:
    """Blocks to train on, to validate with and to test with, out of so many files that hold any text."""

    train: TokenDataset
    val: TokenDataset
    test: TokenDataset
    files: int


def text_files(folder: Path) -> list[Path]:
    """The `.txt` files in a folder, not in those below it, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix == ".txt" and path.is_file())


def read_text(files: Sequence[Path], block_size: int, data: DataConfig) -> Text:
    """Tokenize the files and set some aside: whole ones if there are several, else the end of the only one.

    A `subset` is that many blocks of `train`, by chance. `<|endoftext|>` in a file is plain text. Raises DataError for
    a file that is not UTF-8, naming the byte, and if there is no text.
    """
    texts = [tokens for tokens in map(read_tokens, files) if len(tokens)]
    if not texts:
        raise DataError(f"{files[0] if files else 'the folder'}: there is no text to learn from: give another file")
    if len(texts) == 1:
        streams = _cut(join(texts), data)
    else:
        of = split(len(texts), data)
        streams = [join([texts[i] for i in chosen]) for chosen in (of.train, of.val, of.test)]
    train, val, test = (blocks(stream, block_size) for stream in streams)
    if data.subset is not None:
        train = train.select(sample(len(train), data.subset, data.seed))
    return Text(train, val, test, len(texts))


def _cut(stream: Tensor, data: DataConfig) -> list[Tensor]:
    """The start of a text, what follows, and the end. Each part starts with the last token of the one before."""
    targets = len(stream) - 1
    n_val, n_test = sizes(targets, data)
    first, second = targets - n_val - n_test, targets - n_test
    return [stream[: first + 1], stream[first : second + 1], stream[second:]]


def join(texts: Sequence[Tensor]) -> Tensor:
    """One stream of texts, each (T,) uint16, with an end-of-text before, between and after. Nothing for no text."""
    end = torch.tensor([END_OF_TEXT_ID], dtype=torch.uint16)
    return torch.cat([end, *(part for text in texts for part in (text, end))]) if texts else end[:0]


def blocks(stream: Tensor, block_size: int) -> TokenDataset:
    """Cut a stream (T,) of uint16 into blocks of up to block_size + 1 tokens that overlap by one."""
    starts = range(0, len(stream) - 1, block_size)
    return from_sequences([stream[start : start + block_size + 1] for start in starts], [1] * len(starts))


def read_tokens(path: Path) -> Tensor:
    """A text file's tokens, (T,) uint16. Raises DataError for what is not UTF-8, naming the byte."""
    parts = pieces(read_utf8(path))
    tokens = array("H")
    while batch := list(islice(parts, BATCH)):
        for ids in encode_many(batch):
            tokens.extend(ids)
    return torch.frombuffer(tokens, dtype=torch.uint16) if tokens else torch.empty(0, dtype=torch.uint16)
