"""The part `tokens`: how well the model predicted each token of the prompt."""

from collections.abc import Iterator

import torch

from gpt2cli.config import ExplainConfig
from gpt2cli.insight.choices import likeliest
from gpt2cli.insight.events import Event
from gpt2cli.insight.findings import TokenRow, Tokens
from gpt2cli.insight.passes import logits
from gpt2cli.insight.subject import Subject, token
from gpt2cli.model.device import LOGIT_ROWS


def tokens(subject: Subject, config: ExplainConfig) -> Iterator[Event]:
    """A row for each token of the prompt: its probability and rank among the tokens that could have come instead."""
    first = token(subject.question.prompt[0])
    rows = [TokenRow(first.text, first.id, first.bytes, logprob=None, rank=None, entropy=None, top=())]
    length, step = len(subject.question.prompt), LOGIT_ROWS[subject.idx.device.type]
    for start in range(1, length, step):
        rows += _predicted(subject, start, min(start + step, length), config.top)
    yield Tokens(tuple(rows))


@torch.no_grad()
def _predicted(subject: Subject, start: int, stop: int, top: int) -> list[TokenRow]:
    """The rows of the tokens from `start` to `stop`. Each is predicted at the place before it."""
    actual = subject.idx[0, start:stop, None]
    logprobs = logits(subject.model, subject.trace.final[0, start - 1 : stop - 1]).log_softmax(dim=-1)
    of_actual = logprobs.gather(1, actual)
    ranks = (logprobs > of_actual).sum(dim=1) + 1
    entropies = -(logprobs.exp() * logprobs).sum(dim=1)
    columns = (of_actual[:, 0].tolist(), ranks.tolist(), entropies.tolist(), likeliest(logprobs, top))
    rows = []
    for id, logprob, rank, entropy, choices in zip(subject.question.prompt[start:stop], *columns, strict=True):
        it = token(id)
        rows.append(TokenRow(it.text, it.id, it.bytes, logprob, rank, entropy, choices))
    return rows
