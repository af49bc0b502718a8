"""The part `tokens`: how well the model predicted each token of the prompt."""

from collections.abc import Iterator

import torch

from gpt2cli.config import ExplainConfig
from gpt2cli.insight.choices import likeliest
from gpt2cli.insight.events import Event
from gpt2cli.insight.findings import TokenRow, Tokens
from gpt2cli.insight.passes import LOGIT_ROWS, logits
from gpt2cli.insight.subject import Subject, token


def tokens(subject: Subject, config: ExplainConfig) -> Iterator[Event]:
    """A row for each token of the prompt: its probability and rank among the tokens that could have come instead."""
    first = token(subject.question.prompt[0])
    rows = [TokenRow(first.text, first.id, first.bytes, logprob=None, rank=None, entropy=None, top=())]
    length = len(subject.question.prompt)
    for start in range(1, length, LOGIT_ROWS):
        rows += _predicted(subject, start, min(start + LOGIT_ROWS, length), config.top)
    yield Tokens(tuple(rows))


@torch.no_grad()
def _predicted(subject: Subject, start: int, stop: int, top: int) -> list[TokenRow]:
    """The rows of the tokens from `start` to `stop`. Each is predicted at the place before it."""
    actual = subject.idx[0, start:stop, None]
    scores = logits(subject.model, subject.trace.final[0, start - 1 : stop - 1])
    ranks = (scores > scores.gather(1, actual)).sum(dim=1) + 1
    logprobs = scores.log_softmax(dim=-1)
    entropies = -(logprobs.exp() * logprobs).sum(dim=1)
    of_actual = logprobs.gather(1, actual)[:, 0]
    columns = (of_actual.tolist(), ranks.tolist(), entropies.tolist(), likeliest(logprobs, top))
    rows = []
    for id, logprob, rank, entropy, choices in zip(subject.question.prompt[start:stop], *columns, strict=True):
        it = token(id)
        rows.append(TokenRow(it.text, it.id, it.bytes, logprob, rank, entropy, choices))
    return rows
