r"""Plain text as training data: one stream of tokens, cut into blocks as long as the model's window.

A file holds one document, or several that are separated by a line that holds `<|endoftext|>` and nothing else.
Anywhere else `<|endoftext|>` is plain text. A `\r\n` is read as `\n`, and so is a `\r` where a file has no `\n` at all.
A byte order mark is dropped. Blank documents are left out. In a file of records, each record is a document.

The stream is `<|endoftext|> document <|endoftext|> document ... <|endoftext|>`. So each document has an end, and begins
like a text that the model generates. A block holds up to block_size + 1 tokens, and starts with the last token of the
previous block. So each token of a stream except the first is a target exactly once. The last block may be short.
"""

import re
from array import array
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from gpt2cli.config import DataConfig
from gpt2cli.counted import counted
from gpt2cli.data.columns import listed
from gpt2cli.data.dataset import TokenDataset, from_sequences
from gpt2cli.data.encoding import batches, encode_many
from gpt2cli.data.kinds import entries, is_text, name_in, text_files
from gpt2cli.data.splits import Splits, sample, sizes, split
from gpt2cli.data.text_records import TextRecords
from gpt2cli.data.utf8 import read_utf8
from gpt2cli.errors import DataError
from gpt2cli.tokenizer import END_OF_TEXT, END_OF_TEXT_ID, pieces
from gpt2cli.untrusted import shown

_SEPARATOR = re.compile(rf"^{re.escape(END_OF_TEXT)}[ \t]*(?:\n|\Z)", re.MULTILINE)


def left_out_of(folder: Path) -> tuple[str, ...]:
    """A note on the entries of a folder that `text_files` leaves out: their number, and the name of the first."""
    others = sorted(name_in(folder, path) for path in entries(folder) if not is_text(path))
    if not others:
        return ()
    if len(others) == 1:
        return (f"{folder}: left out 1 entry that is not a visible .txt file, {shown(others[0])}",)
    count = f"{len(others):,} entries that are not visible .txt files"
    return (f"{folder}: left out {count}, the first of them {shown(others[0])}",)


def read_text(path: Path, block_size: int, data: DataConfig) -> Splits:
    """Tokenize a file, or those in a folder, and divide them: whole files, or the parts of the only one.

    `info` has the number of `files` that hold any text. A `subset` is that many random blocks of `train`. Raises
    DataError, with the byte, for a file that is not UTF-8, and if there is no text.
    """
    read = {name: tokenize(read_documents(file)) for name, file in text_files(path).items()}
    texts = {name: documents for name, documents in read.items() if documents}
    if not texts:
        raise DataError(f"{path}: there is no text to learn from: give another file")
    return _divided([*texts.values()], block_size, data, {"files": len(texts)}, [*texts])


def read_text_of(records: TextRecords, block_size: int, data: DataConfig) -> Splits:
    """Tokenize the documents of a file of records, and divide them as `read_text` divides files. `info` counts them."""
    texts = [[tokens] for tokens in tokenize(records.texts)]
    return _divided(texts, block_size, data, {"documents": len(texts)})


def _divided(
    texts: Sequence[Sequence[Tensor]],
    block_size: int,
    data: DataConfig,
    info: dict[str, int],
    names: Sequence[str] = (),
) -> Splits:
    """Blocks of these texts, each of one or more documents, (T,) uint16. A single text is cut, several stay whole.

    A note then says which are held out. Texts may have `names`.
    """
    notes: tuple[str, ...] = ()
    if len(texts) == 1:
        streams = _cut(join(texts[0]), data)
    else:
        parts = split(len(texts), data)
        streams = [join([document for i in part for document in texts[i]]) for part in parts.values()]
        if held := parts["val"]:
            share = len(streams[1]) / sum(map(len, streams))
            noun, named = ("file", f": {listed([names[i] for i in held])}") if names else ("document", "")
            out_of = f"{len(held):,} of {counted(len(texts), noun)}"
            notes = (f"holds out {out_of} for validation, with {100 * share:.0f} % of the tokens{named}",)
    train, val, test = (blocks(stream, block_size) for stream in streams)
    if data.subset is not None:
        train = train.select(sample(len(train), data.subset, data.seed))
    return Splits(train, val, test, None, info, notes)


def _cut(stream: Tensor, data: DataConfig) -> list[Tensor]:
    """The start of a text, its middle, and its end. Each part starts with the last token of the previous one."""
    targets = len(stream) - 1
    n_val, n_test = sizes(targets, data)
    first, second = targets - n_val - n_test, targets - n_test
    return [stream[: first + 1], stream[first : second + 1], stream[second:]]


def join(documents: Sequence[Tensor]) -> Tensor:
    """One stream of documents, each (T,) uint16, with an end of text before, between and after them.

    Without documents, the stream is empty.
    """
    end = torch.tensor([END_OF_TEXT_ID], dtype=torch.uint16)
    return torch.cat([end, *(part for tokens in documents for part in (tokens, end))]) if documents else end[:0]


def blocks(stream: Tensor, block_size: int) -> TokenDataset:
    """Cut a stream, (T,) uint16, into blocks of up to block_size + 1 tokens that overlap by one."""
    starts = range(0, len(stream) - 1, block_size)
    return from_sequences([stream[start : start + block_size + 1] for start in starts], [1] * len(starts))


def read_documents(path: Path) -> list[str]:
    """The documents of a text file without the blank ones. Raises DataError, with the byte, if it is not UTF-8."""
    text = read_utf8(path).replace("\r\n", "\n")
    if "\n" not in text:  # the line ends of the first Macs
        text = text.replace("\r", "\n")
    return [document for document in _SEPARATOR.split(text) if document and not document.isspace()]


def tokenize(documents: Sequence[str]) -> list[Tensor]:
    """The tokens of each document, (T,) uint16; `<|endoftext|>` in them is plain text."""
    tokens, ends = array("H"), [0] * (len(documents) + 1)
    numbered = ((i, piece) for i, document in enumerate(documents) for piece in pieces(document))
    for batch in batches(numbered, lambda item: len(item[1])):
        encoded = encode_many([piece for _, piece in batch])
        for (document, _), ids in zip(batch, encoded, strict=True):
            tokens.extend(ids)
            ends[document + 1] = len(tokens)
    if not tokens:
        return []
    whole = torch.frombuffer(tokens, dtype=torch.uint16)
    return [whole[start:end] for start, end in pairwise(ends)]
