"""Bounds for the answer to one request, which must not fill the memory or keep the slots for ever."""

from collections.abc import Sequence

from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.text_request import TextRequest

MOST_NEW_TOKENS = 1_000_000
"""New tokens of all texts together."""
MOST_LISTED = 200_000
"""Log-probabilities of all texts together. Each takes about 200 bytes until the answer is complete."""


def check_answer_size(texts: Sequence[TextRequest]) -> None:
    """Refuse texts that may become too many new tokens or log-probabilities."""
    tokens = sum(text.sampling.max_new_tokens for text in texts)
    if tokens > MOST_NEW_TOKENS:
        words = f"{len(texts):,} texts may have {tokens:,} new tokens, more than {MOST_NEW_TOKENS:,}"
        raise RefusedError(400, f"{words}: lower max_tokens or n, or send fewer prompts", "max_tokens")
    logprobs = sum(map(_logprobs, texts))
    if logprobs > MOST_LISTED:
        words = f"the answer may have {logprobs:,} log-probabilities, more than {MOST_LISTED:,}"
        advice = "lower max_tokens, n or the number of likeliest tokens, or send fewer prompts"
        raise RefusedError(400, f"{words}: {advice}", "logprobs")


def _logprobs(text: TextRequest) -> int:
    """One for each token, and one for each of the likeliest tokens that are listed with it."""
    new = 0 if text.logprobs is None else text.sampling.max_new_tokens * (1 + text.logprobs)
    return new + (0 if text.prompt_logprobs is None else len(text.ids) * (1 + text.prompt_logprobs))
