"""What the engine is asked for, and what it answers: texts, and the events while they are generated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gpt2cli.config import SamplingConfig
from gpt2cli.errors import GPT2Error
from gpt2cli.generation.logprobs import TokenLogprobs


@dataclass(frozen=True)
class TextRequest:
    """One text to generate. An HTTP request asks for one or several: `n` for each of its prompts.

    ids                the prompt: between 1 token and the window
    sampling           with a seed, for one sample. `max_new_tokens` can be 0: then only the prompt is read.
    logprobs           if not None, each new token gets its log-probability and those of this many likeliest tokens
    prompt_logprobs    if not None, the prompt's tokens from the second one on get theirs, with this many likeliest
    frequency_penalty  subtracted from a token's logit for each time that the token was generated in this text
    presence_penalty   subtracted once from the logit of each token that was generated in this text
    logit_bias         added to the logits of these tokens; -100 excludes a token
    """

    ids: tuple[int, ...]
    sampling: SamplingConfig
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PromptRead:
    """The prompt of text `index` has been read. `logprobs` has an entry for each token from the second one on."""

    index: int
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True)
class NewText:
    """Text that continues text `index` and cannot belong to a stop text.

    logprobs    the entries of the tokens whose characters have all been sent with this piece or an earlier one. The
                token for the end of text has an entry, too, and no text.
    new_tokens  the number of tokens that the model has generated for this text so far
    """

    index: int
    text: str
    logprobs: tuple[TokenLogprobs, ...] = ()
    new_tokens: int = 0


@dataclass(frozen=True)
class TextEnd:
    """Text `index` is complete. `new_tokens` counts all tokens that the model generated, also an end of text."""

    index: int
    finish_reason: Literal["length", "stop"]
    new_tokens: int


@dataclass(frozen=True)
class RequestFailed:
    """The request ends with an error. None of its texts gets another event."""

    error: GPT2Error


TextEvent = PromptRead | NewText | TextEnd | RequestFailed
