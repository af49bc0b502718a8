"""The natural log-probabilities of tokens in the model's distribution: before temperature, top-k, top-p and penalties.

The distribution is over GPT-2's vocabulary. Rows that pad a checkpoint's tables are left out, as they are in sampling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt2cli.bounds import check
from gpt2cli.config import MOST_LOGPROBS, VOCAB_SIZE
from gpt2cli.generation.decode import check_token
from gpt2cli.inference.candidates import candidates
from gpt2cli.inference.decoder import Decoder, as_decoder
from gpt2cli.tokenizer import show

if TYPE_CHECKING:
    from gpt2cli.model.gpt import GPT

LOGIT_ROWS = 64
"""Tokens of a prompt whose logits are computed at a time: they take 13 MB."""


class LikelyToken(NamedTuple):
    """A token that the model could have written, and its log-probability. In JSON: [token, id, logprob]."""

    token: str
    id: int
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The log-probability of a token after the tokens before it.

    token  its text, with bytes that are not UTF-8 as in `tokenizer.show`
    top    the likeliest tokens at its place, the likeliest first
    """

    token: str
    id: int
    logprob: float
    top: tuple[LikelyToken, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The entry of `gpt2 generate --logprobs N --json`."""
        return {"token": self.token, "id": self.id, "logprob": self.logprob, "top": [list(each) for each in self.top]}


@dataclass(frozen=True)
class KeptLogprobs:
    """Gets the log-probabilities of the tokens that `generate_tokens` chooses. UsageError for a `top` out of bounds.

    top   the number of likeliest tokens to list at each place, from 0 to MOST_LOGPROBS
    rows  for each text of the batch, the list that gets an entry for each new token
    """

    top: int
    rows: Sequence[list[TokenLogprobs]]

    def __post_init__(self) -> None:
        _check_top(self.top)

    def add(self, logits: NDArray[np.float32], rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Add the tokens that were chosen for some rows, from their logits (len(rows), V)."""
        for row, found in zip(rows, token_logprobs(logits, tokens, self.top), strict=True):
            self.rows[row].append(found)


def token_logprobs(logits: NDArray[np.float32], tokens: Sequence[int], top: int) -> list[TokenLogprobs]:
    """The log-probability of each of `tokens` (B,), given logits (B, V), and those of the `top` likeliest tokens.

    The logits are in main memory: see `Decoder.to_host`. The tokens are of GPT-2's vocabulary.
    """
    logits = logits[:, :VOCAB_SIZE]
    found = []
    for row, token in zip(logits, tokens, strict=True):
        largest = row.max()
        with np.errstate(invalid="ignore"):  # infinite logits give NaN, which callers find
            total = float(largest) + float(np.log(np.exp(row - largest).sum(dtype=np.float64)))
        values, ids = candidates(row[None], top) if top else (np.empty((1, 0)), np.empty((1, 0)))
        likely = zip(ids[0, :top].tolist(), values[0, :top].tolist(), strict=True)
        listed = tuple(LikelyToken(show(each), each, value - total) for each, value in likely)
        found.append(TokenLogprobs(show(token), token, float(row[token]) - total, listed))
    return found


def prompt_logprobs(model: "Decoder | GPT", ids: Sequence[int], top: int = 0) -> list[TokenLogprobs]:
    """The log-probabilities of the tokens of a text, from the second one on, in one forward pass.

    Raises UsageError for more tokens than the window holds and for a `top` out of bounds, and CheckpointError for a
    token that the model does not know.
    """
    _check_top(top)
    decoder = as_decoder(model)
    if len(ids) < 2:
        return []
    check_token(max(ids), decoder.config.vocab_size)
    hidden = decoder.hidden(np.array([ids], np.int64), decoder.new_cache(1, len(ids)))[0]
    return logprobs_after(decoder, hidden, ids[1:], top)


def logprobs_after(decoder: Decoder, hidden: Any, tokens: Sequence[int], top: int) -> list[TokenLogprobs]:
    """The log-probability of each of some tokens, given the final hidden states (T, C) before them, and perhaps others.

    `top` is as in `token_logprobs`.
    """
    found = list[TokenLogprobs]()
    for start in range(0, len(tokens), LOGIT_ROWS):
        part = tokens[start : start + LOGIT_ROWS]
        logits = decoder.to_host(decoder.head(hidden[start : start + len(part)]))
        found += token_logprobs(logits, part, top)
    return found


def _check_top(top: int) -> None:
    check(0 <= top <= MOST_LOGPROBS, "logprobs", f"from 0 to {MOST_LOGPROBS}", str(top))
