"""Texts while they grow: pieces, and where the tokens lie in them. The answers' shapes are made of these."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Literal

from gpt2cli.generation.logprobs import TokenLogprobs
from gpt2cli.serving.generation_request import GenerationRequest
from gpt2cli.serving.served_model import ServedModel
from gpt2cli.serving.text_request import NewText, TextEnd, TextEvent
from gpt2cli.tokenizer import StreamDecoder, encoding, show


@dataclass(frozen=True, slots=True)
class PlacedToken:
    """A token and the characters of the text that it has a part in: from `start` up to `end`.

    logprobs  None for the first token of a prompt
    """

    id: int
    start: int
    end: int
    logprobs: TokenLogprobs | None


@dataclass(frozen=True)
class Piece:
    """Text that continues text `index`, with its tokens if log-probabilities are wanted; or the end of the text."""

    index: int
    text: str = ""
    tokens: tuple[PlacedToken, ...] = ()
    finish_reason: Literal["length", "stop"] | None = None


def joined(pieces: Sequence[Piece]) -> Piece:
    """All pieces of a text as one."""
    tokens = tuple(token for piece in pieces for token in piece.tokens)
    return Piece(pieces[0].index, "".join(piece.text for piece in pieces), tokens, pieces[-1].finish_reason)


class TokenPlaces:
    """Finds the characters of tokens that follow each other. `start` is the place of the first character."""

    def __init__(self, start: int = 0) -> None:
        self._characters = StreamDecoder()
        self._complete = start

    def place(self, token: int, logprobs: TokenLogprobs | None) -> PlacedToken:
        """The next token. One that is a part of a character has this character's place."""
        start = self._complete
        self._complete += len(self._characters.push(token))
        return PlacedToken(token, start, self._complete + (not self._characters.is_empty), logprobs)


def token_name(token: int) -> str:
    r"""The text of a token as OpenAI spells it: one that is not UTF-8 as `bytes:\xe2\x80`. Each token has its own."""
    try:
        return encoding().decode_single_token_bytes(token).decode()
    except UnicodeDecodeError:
        return f"bytes:{show(token)}"


class GrowingAnswer(ABC):
    """The answer to a request for texts while it grows. Subclasses know OpenAI's shapes for one kind of request.

    first_text_at  the value of `time.perf_counter` when the first new text came
    """

    id_prefix: str
    whole_object: str
    chunk_object: str

    def __init__(self, asked: GenerationRequest, model: ServedModel, created: int) -> None:
        self.asked = asked
        self.first_text_at: float | None = None
        self._open = len(asked.texts)
        self._new_tokens = [0] * len(asked.texts)
        self._id = f"{self.id_prefix}{token_hex(12)}"
        self._model, self._created = model, created

    @property
    def is_complete(self) -> bool:
        """Whether all texts have ended."""
        return not self._open

    @property
    def new_tokens(self) -> int:
        """The tokens that have been generated so far."""
        return sum(self._new_tokens)

    def add(self, event: TextEvent) -> list[Piece]:
        """What the event adds to the answer, often nothing."""
        if isinstance(event, TextEnd):
            self._open -= 1
        elif isinstance(event, NewText) and event.text and self.first_text_at is None:
            self.first_text_at = time.perf_counter()
        if isinstance(event, TextEnd | NewText):
            self._new_tokens[event.index] = event.new_tokens
        return self.pieces(event)

    def whole(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """The JSON of an answer that is not streamed, of all its pieces."""
        texts: list[list[Piece]] = [[] for _ in self.asked.texts]
        for piece in pieces:
            texts[piece.index].append(piece)
        return self._object(self.whole_object, [self.choice(joined(each)) for each in texts]) | {"usage": self.usage()}

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """The JSON of a chunk of a stream."""
        usage = {"usage": None} if self.asked.include_usage else {}
        return self._object(self.chunk_object, [self.chunk_choice(piece)]) | usage

    def usage_chunk(self) -> dict[str, Any]:
        """The chunk after the last of the texts."""
        return self._object(self.chunk_object, []) | {"usage": self.usage()}

    def usage(self) -> dict[str, int]:
        """The numbers of tokens."""
        prompt = self.asked.prompt_tokens
        counts = {"prompt_tokens": prompt, "completion_tokens": self.new_tokens}
        return counts | {"total_tokens": prompt + self.new_tokens}

    def _object(self, name: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": name,
            "created": self._created,
            "model": self._model.name,
            "system_fingerprint": self._model.fingerprint,
            "choices": choices,
        }

    @abstractmethod
    def pieces(self, event: TextEvent) -> list[Piece]:
        """The pieces that an event adds."""

    @abstractmethod
    def choice(self, text: Piece) -> dict[str, Any]:
        """A whole text in `choices`."""

    @abstractmethod
    def chunk_choice(self, piece: Piece) -> dict[str, Any]:
        """A piece of a text in the `choices` of a chunk."""
