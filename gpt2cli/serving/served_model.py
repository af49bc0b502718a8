"""The one model that a server has."""

import hashlib
import time
from dataclasses import dataclass
from typing import Any

from gpt2cli.config import GPTConfig
from gpt2cli.generation.conversation import template_of
from gpt2cli.hub.tokenizer_files import check_tokenizer
from gpt2cli.inference.decoder import Decoder
from gpt2cli.prompts import PromptTemplate
from gpt2cli.tokenizer import END_OF_TEXT_ID


@dataclass(frozen=True)
class ServedModel:
    """What requests and answers need to know about the model.

    name             its id in /v1/models and in all answers: a published name, owner/name, or the last part of a path
    created          when it was loaded, in seconds since 1970
    template         for chats; None for a model that was trained on plain text, which continues the conversation
    assumes_alpaca   whether the checkpoint has no template, so that chats use Alpaca's
    fingerprint      equal for servers that give the same text for the same seed: it depends on the weights, the
                     precision and the processor
    """

    name: str
    created: int
    config: GPTConfig
    precision: str
    device: str
    template: PromptTemplate | None
    assumes_alpaca: bool
    fingerprint: str

    def as_dict(self) -> dict[str, Any]:
        """The entry of /v1/models. Fields after `owned_by` are not OpenAI's."""
        raise NotImplementedError


def served_model(decoder: Decoder, name: str) -> ServedModel:
    """Describe a decoder. Raises CheckpointError for a model with another tokenizer, or with a damaged template."""
    check_tokenizer(decoder)
    origin = decoder.origin
    return ServedModel(
        name,
        int(time.time()),
        decoder.config,
        decoder.precision,
        decoder.device,
        template_of(decoder),
        origin.template is None and not origin.is_plain_text,
        _fingerprint(decoder),
    )


def _fingerprint(decoder: Decoder) -> str:
    """A hash of the logits after `<|endoftext|>`, to which all matrices contribute."""
    logits = decoder([[END_OF_TEXT_ID]])
    return f"fp_{hashlib.sha256(logits.tobytes()).hexdigest()[:12]}"
