"""The answers of /v1/chat/completions: messages of the assistant in OpenAI's shape, whole and in chunks."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from gpt2cli.serving.generation_request import GenerationRequest
from gpt2cli.serving.served_model import ServedModel
from gpt2cli.serving.text_pieces import GrowingAnswer, Piece, PlacedToken, TokenPlaces, token_name
from gpt2cli.serving.text_request import NewText, PromptRead, TextEnd, TextEvent
from gpt2cli.tokenizer import encoding


class StrippedText:
    """A text without the blank space at its ends, while it grows.

    The tokens of this blank space are left out, and so is the end of text, whose characters are not in the text.

    blanks  the characters that are left out at the ends; None: all white space
    """

    def __init__(self, index: int, blanks: str | None = None) -> None:
        self._index, self._blanks = index, blanks
        self._held = ""  # blank space that may be the end of the text
        self._sent = 0  # characters of the text, with those that were left out at its beginning
        self._is_begun = False
        self._places = TokenPlaces()
        self._tokens: deque[PlacedToken] = deque()

    def add(self, event: NewText) -> list[Piece]:
        """The piece that can be sent, if there is one."""
        self._tokens += [self._places.place(each.id, each) for each in event.logprobs]
        text = self._held + event.text
        if not self._is_begun:
            begun = text.lstrip(self._blanks)
            self._sent += len(text) - len(begun)
            self._take_tokens()
            text, self._is_begun = begun, bool(begun)
        content = text.rstrip(self._blanks)
        self._held = text[len(content) :]
        self._sent += len(content)
        tokens = self._take_tokens()
        return [Piece(self._index, content, tokens)] if content or tokens else []

    def _take_tokens(self) -> tuple[PlacedToken, ...]:
        """The tokens up to the last character that was sent."""
        taken = []
        while self._tokens and self._tokens[0].end <= self._sent:
            taken.append(self._tokens.popleft())
        return tuple(taken)


class ChatAnswer(GrowingAnswer):
    """A chat completion. A text's first piece is empty: it becomes the chunk that says who speaks.

    The answer of a model without a template is the exact text: the next prompt continues it.
    """

    id_prefix = "chatcmpl-"
    whole_object, chunk_object = "chat.completion", "chat.completion.chunk"

    def __init__(self, asked: GenerationRequest, model: ServedModel, created: int) -> None:
        super().__init__(asked, model, created)
        blanks = "" if model.template is None else None
        self._texts = [StrippedText(index, blanks) for index in range(len(asked.texts))]

    def pieces(self, event: TextEvent) -> list[Piece]:
        if isinstance(event, PromptRead):
            return [Piece(event.index)]
        if isinstance(event, NewText):
            return self._texts[event.index].add(event)
        if isinstance(event, TextEnd):
            return [Piece(event.index, finish_reason=event.finish_reason)]
        return []

    def choice(self, text: Piece) -> dict[str, Any]:
        message = {"role": "assistant", "content": text.text, "refusal": None}
        return {
            "index": text.index,
            "message": message,
            "logprobs": None if self.asked.logprobs is None else chat_logprobs(text.tokens),
            "finish_reason": text.finish_reason,
        }

    def chunk_choice(self, piece: Piece) -> dict[str, Any]:
        delta: dict[str, Any] = {"content": piece.text} if piece.text or piece.tokens else {}
        if not delta and piece.finish_reason is None:
            delta = {"role": "assistant", "content": ""}
        logprobs = chat_logprobs(piece.tokens) if piece.tokens else None
        return {"index": piece.index, "delta": delta, "logprobs": logprobs, "finish_reason": piece.finish_reason}


def chat_logprobs(tokens: Sequence[PlacedToken]) -> dict[str, Any]:
    """The `logprobs` of a message."""
    found = []
    for each in tokens:
        assert each.logprobs is not None  # a message has no tokens of the prompt
        top = [_entry(likely.id, likely.logprob) for likely in each.logprobs.top]
        found.append(_entry(each.id, each.logprobs.logprob) | {"top_logprobs": top})
    return {"content": found, "refusal": None}


def _entry(token: int, logprob: float) -> dict[str, Any]:
    content = encoding().decode_single_token_bytes(token)
    return {"token": token_name(token), "logprob": logprob, "bytes": [*content]}
