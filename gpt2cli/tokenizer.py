"""GPT-2's byte-pair encoding: tiktoken over the vocabulary that comes with the package.

tiktoken's own `get_encoding("gpt2")` fetches its vocabulary from the network at first use; this one never does.
"""

import codecs
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING

from gpt2cli import paths
from gpt2cli.config import VOCAB_SIZE
from gpt2cli.errors import CheckpointError, DataError

if TYPE_CHECKING:
    import tiktoken

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 50256

# OpenAI's vocab.bpe: the hash is the one that tiktoken checks too
VOCAB_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"

# How text is cut before merging: contractions, words, numbers and signs, each with the space before it; other
# white space. The expression of the GPT-2 release, with possessive quantifiers, which find the same pieces faster.
SPLIT_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

PIECE = 2**16
"""Characters after which a long text is cut at the next place where the tokenizer cuts anyway ..."""
LONGEST_PIECE = 2 * PIECE
"""... or, if there is no such place, at any. The regular expression fails on a run of about a million blanks."""

# A token never reaches from a sign into the blank behind it, or from a letter or digit into punctuation.
_CERTAIN_CUT = re.compile(r"(?<=\S)[ \n]|(?<=[^\W_])[!-/:-@\[-`{-~、。〈-】！，．：；？]")


def encode(text: str, allow_special: bool = True) -> list[int]:
    """Text of any length to token ids.

    One rule holds for `<|endoftext|>`: in the prompt of a plain continuation (`allow_special`) it is the special token,
    id 50256. Everywhere else it is plain text: in training data, and in the instructions, inputs and answers of a chat
    and of an evaluation. Raises DataError for text that is not valid Unicode, naming the byte.
    """
    check_unicode(text)
    if not allow_special:
        return encode_plain(text)
    ids: list[int] = []
    for number, part in enumerate(text.split(END_OF_TEXT)):
        ids += [END_OF_TEXT_ID] * (number > 0)
        ids += encode_plain(part)
    return ids


def encode_plain(text: str) -> list[int]:
    """Valid Unicode text of any length to token ids; `<|endoftext|>` in it is plain text.

    Only where more than PIECE characters follow each other without a blank or a punctuation mark can the ids differ
    from those of the reference tokenizer.
    """
    encode_piece = encoding().encode_ordinary  # releases Python's lock while it works
    if len(text) <= LONGEST_PIECE:
        return encode_piece(text)
    return [*chain.from_iterable(map(encode_piece, pieces(text)))]


def pieces(text: str) -> Iterator[str]:
    """The text in pieces of at most LONGEST_PIECE characters, cut where the tokenizer cuts too, if there is a place."""
    start = 0
    while len(text) - start > LONGEST_PIECE:
        found = _CERTAIN_CUT.search(text, start + PIECE, start + LONGEST_PIECE)
        end = found.start() if found else start + LONGEST_PIECE
        yield text[start:end]
        start = end
    yield text[start:] if start else text


def decode(ids: list[int]) -> str:
    """Token ids to text; bytes that are no UTF-8 become U+FFFD."""
    return encoding().decode(ids)


def check_unicode(text: str) -> None:
    """Raise DataError if the text holds a lone surrogate, as arguments with broken bytes do."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        offset = len(text[: error.start].encode())
        raise DataError(f"the text is not valid Unicode at byte {offset}: give it as UTF-8") from None


class StreamDecoder:
    """Turns token ids into text one at a time, holding back a character until its last byte is there."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that this token completes, possibly none."""
        return self._utf8.decode(encoding().decode_single_token_bytes(token))

    @property
    def is_empty(self) -> bool:
        """Whether no bytes are held back."""
        return not self._utf8.getstate()[0]

    def finish(self) -> str:
        """What is left at the end: nothing, or U+FFFD for a character that never became whole."""
        return self._utf8.decode(b"", final=True)


@cache
def encoding() -> "tiktoken.Encoding":
    """GPT-2's encoding, built once."""
    import tiktoken

    return tiktoken.Encoding(
        name="gpt2",
        pat_str=SPLIT_PATTERN,
        mergeable_ranks=_read_ranks(),
        special_tokens={END_OF_TEXT: END_OF_TEXT_ID},
        explicit_n_vocab=VOCAB_SIZE,
    )


def vocabulary() -> dict[str, int]:
    """GPT-2's `vocab.json`: every token in the spelling of the release, with its id."""
    spelling = {byte: char for char, byte in _byte_of_char().items()}
    tokens = {"".join(spelling[byte] for byte in token): rank for token, rank in _read_ranks().items()}
    return tokens | {END_OF_TEXT: END_OF_TEXT_ID}


def merges() -> list[str]:
    """GPT-2's `merges.txt`: two tokens in the spelling of the release, with a space between, in order of rank."""
    path = paths.asset("vocab.bpe")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != VOCAB_SHA256:
        raise CheckpointError(f"the vocabulary {path} is damaged: reinstall gpt2cli")
    return content.decode().splitlines()[1:]  # the first line is a version


def _read_ranks() -> dict[bytes, int]:
    """Every token's bytes and its id: the 256 bytes first, then the merges in the order they were learned."""
    byte_of = _byte_of_char()
    ranks = {bytes([byte]): rank for rank, byte in enumerate(byte_of.values())}
    for rank, merge in enumerate(merges(), start=len(ranks)):
        ranks[bytes([byte_of[char] for char in merge if char != " "])] = rank
    return ranks


def _byte_of_char() -> dict[str, int]:
    """The bytes in the order of their ids, each under the printable character that stands for it in the release."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    stand_ins = {chr(256 + i): byte for i, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | stand_ins
