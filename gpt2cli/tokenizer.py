"""GPT-2's byte-pair encoding: tiktoken with the vocabulary in this package.

tiktoken's `get_encoding("gpt2")` downloads the vocabulary at first use. This module never uses the network.
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

# the hash of OpenAI's vocab.bpe, which tiktoken checks too
VOCAB_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"

# Cuts text before the merges: contractions, words, numbers and signs, each with the space before it; other white
# space. GPT-2's own expression, with possessive quantifiers, which find the same pieces faster.
SPLIT_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

PIECE = 2**16
"""The least characters of a piece of a long text. The piece ends at the next place where the tokenizer cuts too."""
LONGEST_PIECE = 2 * PIECE
"""The most characters of a piece, if no such place is found. The regular expression fails on a million blanks."""

# No token contains a sign and the blank after it, or a letter or digit and the punctuation after it.
_CERTAIN_CUT = re.compile(r"(?<=\S)[ \n]|(?<=[^\W_])[!-/:-@\[-`{-~、。〈-】！，．：；？]")


def encode(text: str, allow_special: bool = True) -> list[int]:
    """Converts text of any length to token ids.

    With `allow_special`, `<|endoftext|>` is the special token with id 50256. Only the prompts of plain continuations
    use this. Everywhere else `<|endoftext|>` is plain text: in training data, and in the instructions, inputs and
    answers of chats and evaluations. Raises DataError for text that is not valid Unicode, with the byte's number.
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
    """Converts valid Unicode text of any length to token ids. `<|endoftext|>` is plain text.

    The ids can differ from the reference tokenizer's only where more than PIECE characters contain no blank and no
    punctuation mark.
    """
    encode_piece = encoding().encode_ordinary  # releases Python's lock while it works
    if len(text) <= LONGEST_PIECE:
        return encode_piece(text)
    return [*chain.from_iterable(map(encode_piece, pieces(text)))]


def pieces(text: str) -> Iterator[str]:
    """Yields the text in pieces of at most LONGEST_PIECE characters, cut where the tokenizer cuts too if possible."""
    start = 0
    while len(text) - start > LONGEST_PIECE:
        found = _CERTAIN_CUT.search(text, start + PIECE, start + LONGEST_PIECE)
        end = found.start() if found else start + LONGEST_PIECE
        yield text[start:end]
        start = end
    yield text[start:] if start else text


def decode(ids: list[int]) -> str:
    """Converts token ids to text. Bytes that are not UTF-8 become U+FFFD. Raises DataError for another id."""
    try:
        return encoding().decode(ids)
    except (KeyError, OverflowError):
        raise DataError(f"one of the ids is no token: give ids from 0 to {END_OF_TEXT_ID}") from None


def show(token: int) -> str:
    r"""The text of one token. Bytes that are not UTF-8 are shown as `\xe2`. An id without a token is `[50300]`."""
    try:
        content = encoding().decode_single_token_bytes(token)
    except KeyError:  # a model with a padded vocabulary
        return f"[{token}]"
    return content.decode("utf-8", errors="backslashreplace")


def check_unicode(text: str) -> None:
    """Raise DataError if the text contains a lone surrogate, which stands for an invalid byte in an argument."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        offset = len(text[: error.start].encode())
        raise DataError(f"the text is not valid Unicode at byte {offset}: give it as UTF-8") from None


class StreamDecoder:
    """Converts token ids to text, one id at a time. A character is complete with the token that has its last byte."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The characters that this token completes: possibly none."""
        return self._utf8.decode(encoding().decode_single_token_bytes(token))

    @property
    def is_empty(self) -> bool:
        """Whether no character is incomplete."""
        return not self._utf8.getstate()[0]

    def finish(self) -> str:
        """The text after the last token: empty, or U+FFFD for an incomplete character."""
        return self._utf8.decode(b"", final=True)


@cache
def encoding() -> "tiktoken.Encoding":
    """GPT-2's encoding. It is built at the first call."""
    import tiktoken

    return tiktoken.Encoding(
        name="gpt2",
        pat_str=SPLIT_PATTERN,
        mergeable_ranks=_read_ranks(),
        special_tokens={END_OF_TEXT: END_OF_TEXT_ID},
        explicit_n_vocab=VOCAB_SIZE,
    )


def vocabulary() -> dict[str, int]:
    """The content of GPT-2's `vocab.json`: each token, spelled as in OpenAI's release, with its id."""
    spelling = {byte: char for char, byte in _byte_of_char().items()}
    tokens = {"".join(spelling[byte] for byte in token): rank for token, rank in _read_ranks().items()}
    return tokens | {END_OF_TEXT: END_OF_TEXT_ID}


def merges() -> list[str]:
    """The lines of GPT-2's `merges.txt` in order of rank: two tokens, spelled as in OpenAI's release, and a space.

    Raises CheckpointError if the bundled file is damaged.
    """
    path = paths.asset("vocab.bpe")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != VOCAB_SHA256:
        raise CheckpointError(f"the vocabulary {path} is damaged: reinstall gpt2cli")
    return content.decode().splitlines()[1:]  # the first line is the version


def _read_ranks() -> dict[bytes, int]:
    """The bytes of each token, with its id: first the 256 single bytes, then the merges in the order of their ranks."""
    byte_of = _byte_of_char()
    ranks = {bytes([byte]): rank for rank, byte in enumerate(byte_of.values())}
    for rank, merge in enumerate(merges(), start=len(ranks)):
        ranks[bytes([byte_of[char] for char in merge if char != " "])] = rank
    return ranks


def _byte_of_char() -> dict[str, int]:
    """The printable character for each byte in OpenAI's release, with that byte, in the order of the bytes' ids."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    stand_ins = {chr(256 + i): byte for i, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | stand_ins
