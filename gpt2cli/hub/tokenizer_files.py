"""Checks whether a model was made for GPT-2's tokenizer, by the files beside its weights.

gpt2cli has only GPT-2's tokenizer. With another model, it would encode texts as wrong ids, without any error.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gpt2cli.config import VOCAB_SIZE, GPTConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.model.origin import Origin
from gpt2cli.tokenizer import END_OF_TEXT, END_OF_TEXT_ID
from gpt2cli.untrusted import is_file, parse_json, read_at_most, shown

FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "added_tokens.json")
"""The files of transformers for a tokenizer of GPT-2's kind."""
VOCABULARIES = FILES[:2]
OTHER_KINDS = ("spiece.model", "sentencepiece.bpe.model", "sentencepiece.model", "tokenizer.model", "vocab.txt")
"""Vocabularies of SentencePiece and of BERT."""
PROVENANCE = "other_tokenizer"
"""The entry in a checkpoint's provenance with the reason why its tokenizer is not GPT-2's."""
MAX_SIZE = 2**24
"""Bytes of the largest file that is read. GPT-2's largest has 2 million."""
PADDED_SIZE = 51_200
"""The most rows of an embedding for GPT-2's tokenizer: its vocabulary, padded to a multiple of 1,024."""

# digests of GPT-2's tokens, in the order of their ids and the spelling of vocab.json, and of its merges; both are
# joined by newlines
TOKENS_SHA256 = "e35a33a0b2250c932ffdafc4c3a3552aef0cc7af7a11e9ebfddf1d2a6517371f"
MERGES_SHA256 = "04e3597d7996f292ca9b8b7285ca4d58a6ae171ac47d73fc7140ceb0c7a6bbc0"

_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""OpenAI's regular expression that divides a text into words for GPT-2."""
_END = (END_OF_TEXT_ID, END_OF_TEXT)
# classes that read any byte-pair encoding from the files; a model with another class is not for GPT-2's tokenizer
_CLASSES = {"GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", "PreTrainedTokenizer", "AutoTokenizer"}
_CLASSES |= {"TokenizersBackend", "GPT2TokenizerBase"}


@dataclass(frozen=True)
class Tokenizer:
    """What is known about the tokenizer that a model was made for.

    other  why it is not GPT-2's; None if it is GPT-2's, or if nothing is known
    added  its tokens that GPT-2's does not have
    known  whether a vocabulary was found
    """

    other: str | None = None
    added: tuple[str, ...] = ()
    known: bool = False

    def or_else(self, second: "Tokenizer") -> "Tokenizer":
        """Both combined. If both have a reason in `other`, this one's is taken."""
        added = tuple(dict.fromkeys(self.added + second.added))
        return Tokenizer(self.other or second.other, added, self.known or second.known)


class _OtherError(Exception):
    """The tokenizer is not GPT-2's, or its files are damaged. The message says why."""


def read_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer in a directory of the Hub's layout. Never raises: damaged files count as another tokenizer."""
    try:
        return _read(directory)
    except _OtherError as error:
        return Tokenizer(other=str(error), known=True)


def tokenizer_files(directory: Path) -> list[Path]:
    """The files that `read_tokenizer` looks at, without the configs: those of them that exist."""
    return [path for path in (directory / name for name in (*FILES, *OTHER_KINDS)) if is_file(path)]


class _Described(Protocol):
    """A decoder, a GPT or a stored model."""

    @property
    def config(self) -> GPTConfig: ...

    @property
    def origin(self) -> Origin: ...


def check_tokenizer(model: _Described, where: object = "the model") -> None:
    """Raise CheckpointError if a model was made for another tokenizer than GPT-2's."""
    refuse(_too_few(model.config.vocab_size) or model.origin.other_tokenizer, where)


def refuse(other: str | None, where: object) -> None:
    """Raise CheckpointError if `other` gives a reason why the tokenizer is not GPT-2's."""
    if other:
        raise CheckpointError(
            f"{where} was made for another tokenizer ({other}), and gpt2cli reads text with GPT-2's alone: "
            "use a model that has GPT-2's tokenizer"
        )


def remark(tokenizer: Tokenizer, rows: int) -> str | None:
    """A note for a model of `rows` tokens that is used with GPT-2's tokenizer; None if there is nothing to note."""
    if tokenizer.added:
        some = ", ".join(shown(token, 30) for token in tokenizer.added[:3])
        count = f"{len(tokenizer.added)} token{'s' * (len(tokenizer.added) > 1)}"
        return f"has {count} besides GPT-2's ({some}): in a text, these are read as plain characters"
    if rows > PADDED_SIZE and not tokenizer.known:
        return f"has {rows:,} tokens, GPT-2 {VOCAB_SIZE:,}, and no file says which tokenizer it needs: using GPT-2's"
    return None


def is_gpt2s_vocabulary(tokens: list[str]) -> bool:
    """Whether these tokens, in the order of their ids and the spelling of vocab.json, begin with all of GPT-2's."""
    return len(tokens) >= VOCAB_SIZE and _sha256(tokens[:VOCAB_SIZE]) == TOKENS_SHA256


def _too_few(rows: int) -> str | None:
    """The reason why a vocabulary of `rows` tokens cannot be GPT-2's, if it has fewer."""
    return f"its vocabulary has {rows:,} tokens, GPT-2's {VOCAB_SIZE:,}" if rows < VOCAB_SIZE else None


def _read(directory: Path) -> Tokenizer:
    config, settings = _json(directory / "config.json"), _json(directory / "tokenizer_config.json")
    rows = config.get("vocab_size")
    if type(rows) is int and (few := _too_few(rows)):
        raise _OtherError(few)
    apart = _by_id(_json(directory / "added_tokens.json")) | _decoder(settings.get("added_tokens_decoder"))
    found: list[dict[int, str]] = []
    if is_file(directory / "tokenizer.json"):
        found.append(apart | _fast(_json(directory / "tokenizer.json")))
    if is_file(directory / "vocab.json"):
        found.append(_by_id(_json(directory / "vocab.json")) | apart)
    if is_file(directory / "merges.txt"):
        _check_merges(_content(directory / "merges.txt").decode("utf-8-sig", errors="replace").splitlines())
    for tokens in found:
        if not is_gpt2s_vocabulary([tokens.get(number, "") for number in range(VOCAB_SIZE)]):
            raise _OtherError("its vocabulary has other tokens than GPT-2's")
    if not found:
        _check_kind(directory, settings, config)
        found.append(apart)
        if any(number < VOCAB_SIZE and (number, token) != _END for number, token in apart.items()):
            raise _OtherError("its added tokens replace tokens of GPT-2's")
    added = {number: token for tokens in found for number, token in tokens.items() if number >= VOCAB_SIZE}
    return Tokenizer(added=tuple(added[number] for number in sorted(added)), known=len(found[0]) >= VOCAB_SIZE)


def _check_kind(directory: Path, settings: dict[str, Any], config: dict[str, Any]) -> None:
    """Raise _OtherError for signs of another kind of tokenizer, in a directory without a vocabulary of GPT-2's kind."""
    for name in OTHER_KINDS:
        if is_file(directory / name):
            raise _OtherError(f"its vocabulary is {name}")
    for fields in (settings, config):
        kind = fields.get("tokenizer_class")
        if isinstance(kind, str) and kind not in _CLASSES:
            raise _OtherError(f"its tokenizer is a {shown(kind, 40)}")


def _fast(content: dict[str, Any]) -> dict[int, str]:
    """The tokens in a tokenizer.json, by id. Raises _OtherError if it is of another kind than GPT-2's."""
    model = content.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        raise _OtherError("its tokenizer.json is of another kind than GPT-2's")
    vocabulary, merges, added = model.get("vocab"), model.get("merges"), content.get("added_tokens")
    if not isinstance(vocabulary, dict) or not isinstance(merges, list):
        raise _OtherError("its tokenizer.json is damaged")
    if (
        model.get("continuing_subword_prefix")
        or model.get("end_of_word_suffix")
        or content.get("normalizer") not in (None, {"type": "Sequence", "normalizers": []})
        or not _splits_as_gpt2s(content.get("pre_tokenizer"))
    ):
        raise _OtherError("its tokenizer.json divides a text into other words than GPT-2's")
    _check_merges([" ".join(map(str, merge)) if isinstance(merge, list) else str(merge) for merge in merges])
    entries = [entry for entry in (added if isinstance(added, list) else []) if isinstance(entry, dict)]
    return _by_id(vocabulary) | {
        entry["id"]: str(entry.get("content")) for entry in entries if type(entry.get("id")) is int
    }


def _splits_as_gpt2s(splitter: Any) -> bool:
    """Whether the `pre_tokenizer` of a tokenizer.json divides a text by GPT-2's pattern, as its ByteLevel part does."""
    if not isinstance(splitter, dict):
        return False
    parts = splitter.get("pretokenizers") if splitter.get("type") == "Sequence" else [splitter]
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        return False
    *before, last = parts
    if last.get("type") != "ByteLevel":
        return False
    if last.get("use_regex", True) is not False:
        return not before
    return [(part.get("type"), part.get("pattern")) for part in before] == [("Split", {"Regex": _PATTERN})]


def _check_merges(lines: list[str]) -> None:
    if lines and lines[0].startswith("#version"):
        lines = lines[1:]
    if _sha256([line for line in lines if line.strip()]) != MERGES_SHA256:
        raise _OtherError("it has other merges than GPT-2's")


def _by_id(vocabulary: dict[str, Any]) -> dict[int, str]:
    if any(type(number) is not int for number in vocabulary.values()):
        raise _OtherError("its vocabulary gives tokens no numbers")
    return {number: token for token, number in vocabulary.items()}


def _decoder(tokens: Any) -> dict[int, str]:
    """The tokens in the `added_tokens_decoder` of a tokenizer_config.json, whose keys are ids as texts."""
    entries = tokens.items() if isinstance(tokens, dict) else ()
    return {
        int(number): str(entry.get("content"))
        for number, entry in entries
        if isinstance(entry, dict) and number.isdecimal() and len(number) < 10
    }


def _json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one if the file is not there."""
    try:
        value = parse_json(_content(path)) if is_file(path) else {}
    except ValueError:
        raise _OtherError(f"its {path.name} is not JSON") from None
    if not isinstance(value, dict):
        raise _OtherError(f"its {path.name} holds no JSON object")
    return value


def _content(path: Path) -> bytes:
    try:
        content = read_at_most(path, MAX_SIZE)
    except OSError as error:
        raise _OtherError(f"its {path.name} cannot be read: {error.strerror}") from None
    if content is None:
        raise _OtherError(f"its {path.name} is larger than {MAX_SIZE:,} bytes")
    return content


def _sha256(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogatepass")).hexdigest()
