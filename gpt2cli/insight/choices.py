"""The likeliest tokens, for findings."""

from torch import Tensor

from gpt2cli.insight.findings import Choice, Choices
from gpt2cli.tokenizer import show


def likeliest(logprobs: Tensor, count: int) -> list[Choices]:
    """The `count` likeliest tokens of each distribution, given as log-probabilities (N, V)."""
    best, ids = logprobs.topk(min(count, logprobs.shape[-1]))
    return [
        tuple(Choice(show(id), id, probability) for id, probability in zip(*row, strict=True))
        for row in zip(ids.tolist(), best.exp().tolist(), strict=True)
    ]
