"""The answers of /v1/completions: text completions in OpenAI's shape, whole and in chunks."""

from collections.abc import Sequence
from typing import Any

from gpt2cli.generation.logprobs import TokenLogprobs
from gpt2cli.serving.generation_request import GenerationRequest
from gpt2cli.serving.served_model import ServedModel
from gpt2cli.serving.text_pieces import GrowingAnswer, Piece, PlacedToken, TokenPlaces, token_name
from gpt2cli.serving.text_request import NewText, PromptRead, TextEnd, TextEvent


class CompletionAnswer(GrowingAnswer):
    """A completion. With `echo`, each text begins with its prompt."""

    id_prefix = "cmpl-"
    whole_object = chunk_object = "text_completion"

    def __init__(self, asked: GenerationRequest, model: ServedModel, created: int) -> None:
        super().__init__(asked, model, created)
        prompts = asked.prompts if asked.echo else [""] * len(asked.prompts)
        self._places = [TokenPlaces(len(prompt)) for prompt in prompts for _ in range(asked.n)]

    def pieces(self, event: TextEvent) -> list[Piece]:
        if isinstance(event, PromptRead) and self.asked.echo:
            return [self._prompt(event)]
        if isinstance(event, NewText):
            places = self._places[event.index]
            return [Piece(event.index, event.text, tuple(places.place(each.id, each) for each in event.logprobs))]
        if isinstance(event, TextEnd):
            return [Piece(event.index, finish_reason=event.finish_reason)]
        return []

    def _prompt(self, event: PromptRead) -> Piece:
        text = self.asked.prompts[event.index // self.asked.n]
        if self.asked.logprobs is None:
            return Piece(event.index, text)
        ids, places = self.asked.texts[event.index].ids, TokenPlaces()
        entries = zip(ids, [None, *event.logprobs], strict=True)
        return Piece(event.index, text, tuple(places.place(token, entry) for token, entry in entries))

    def choice(self, text: Piece) -> dict[str, Any]:
        return {
            "text": text.text,
            "index": text.index,
            "logprobs": None if self.asked.logprobs is None else legacy_logprobs(text.tokens),
            "finish_reason": text.finish_reason,
        }

    def chunk_choice(self, piece: Piece) -> dict[str, Any]:
        return self.choice(piece) | ({} if piece.tokens else {"logprobs": None})


def legacy_logprobs(tokens: Sequence[PlacedToken]) -> dict[str, list[Any]]:
    """The `logprobs` of a completion. The first token of a prompt has null."""
    return {
        "tokens": [token_name(each.id) for each in tokens],
        "token_logprobs": [each.logprobs and each.logprobs.logprob for each in tokens],
        "top_logprobs": [each.logprobs and _by_name(each.logprobs) for each in tokens],
        "text_offset": [each.start for each in tokens],
    }


def _by_name(entry: TokenLogprobs) -> dict[str, float]:
    """The likeliest tokens, and the token itself, which may be none of them."""
    return {token_name(each.id): each.logprob for each in entry.top} | {token_name(entry.id): entry.logprob}
