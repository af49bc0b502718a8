"""The one model that a server has."""

import hashlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt2cli.config import CHAT, GPTConfig, SamplingConfig
from gpt2cli.errors import DivergedError
from gpt2cli.generation.conversation import template_of
from gpt2cli.hub.tokenizer_files import check_tokenizer
from gpt2cli.inference.decoder import Decoder
from gpt2cli.prompts import PromptTemplate
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.tokenizer import END_OF_TEXT_ID
from gpt2cli.untrusted import shown

PROBE_TOKENS = 15
"""The tokens after `<|endoftext|>` in the text whose logits identify the weights."""


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
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "gpt2cli",
            "max_model_len": self.config.block_size,
            "precision": self.precision,
            "device": self.device,
            "system_fingerprint": self.fingerprint,
            "prompt_template": self._prompt_template,
            "defaults": {"completions": _defaults(SamplingConfig()), "chat": _defaults(CHAT)},
        }

    def check_name(self, name: str) -> None:
        """Raise RefusedError (404) if a request names another model."""
        if name != self.name:
            words = f"the model {shown(name)} is not served here: use {shown(self.name)}, or name none"
            raise RefusedError(404, words, "model", "model_not_found")

    @property
    def _prompt_template(self) -> str:
        if self.template is None:
            return "none: the model continues the conversation"
        return "Alpaca's, because the checkpoint has none" if self.assumes_alpaca else "the checkpoint's"


def served_model(decoder: Decoder, name: str) -> ServedModel:
    """Describe a decoder.

    Raises CheckpointError for a model with another tokenizer, or with a damaged template, and DivergedError for a model
    whose logits are not finite.
    """
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


def _defaults(sampling: SamplingConfig) -> dict[str, Any]:
    """The values of the fields that a request does not give."""
    return {
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
    }


def _fingerprint(decoder: Decoder) -> str:
    """A hash of the logits after a short text. All matrices contribute: queries and keys need several tokens."""
    ids = [END_OF_TEXT_ID, *range(PROBE_TOKENS)][: decoder.config.block_size]
    logits = decoder([ids])
    if not np.isfinite(logits).all():
        raise DivergedError("the model's logits are not finite: try --precision fp32, or another checkpoint")
    return f"fp_{hashlib.sha256(logits.tobytes()).hexdigest()[:12]}"
