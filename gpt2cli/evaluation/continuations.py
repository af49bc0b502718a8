"""The log-likelihoods of texts after given contexts, as tasks with several choices need them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from gpt2cli.data.batches import rows_of_groups
from gpt2cli.data.dataset import from_sequences
from gpt2cli.errors import DataError, DivergedError
from gpt2cli.evaluation.likelihood import portions, token_losses
from gpt2cli.generation.decode import check_token
from gpt2cli.inference.decoder import Decoder
from gpt2cli.model.device import TOKENS_PER_PASS
from gpt2cli.model.device_names import device_kind


class Pair(NamedTuple):
    """Token ids: a context of at least one token, and the tokens to predict after it, also at least one."""

    context: Sequence[int]
    continuation: Sequence[int]


class Likelihood(NamedTuple):
    """The natural log-probability of a continuation, and whether each of its tokens was the likeliest one."""

    logprob: float
    is_greedy: bool


def score_pairs(decoder: Decoder, pairs: Sequence[Pair]) -> Iterator[tuple[int, Likelihood]]:
    """Yield (index, likelihood) of each pair, those with long contexts first.

    Continuations of the same context share the forward pass over it, except on CUDA. A context that is too long for the
    window loses its first tokens. Raises DataError for a continuation that is longer than the window, CheckpointError
    for a token that the model does not know, and DivergedError for a log-probability that is not finite.
    """
    cut = [_cut(pair, decoder.config.block_size) for pair in pairs]
    by_context: dict[tuple[int, ...], list[int]] = {}
    for i, pair in enumerate(cut):
        by_context.setdefault(tuple(pair.context), []).append(i)
    groups = sorted(by_context.values(), key=lambda group: -sum(map(len, cut[group[0]])))
    max_tokens = TOKENS_PER_PASS[device_kind(decoder.device)]
    lengths = [sum(sum(map(len, cut[i])) for i in group) for group in groups]
    for chosen in portions(lengths, max_tokens):
        yield from _score_groups(decoder, cut, [groups[i] for i in chosen], max_tokens)


def _cut(pair: Pair, block_size: int) -> Pair:
    """The pair without the first tokens of its context that the window has no place for.

    The last token of the continuation is only predicted, so that the window can hold one token less than the pair.
    """
    n = len(pair.continuation)
    if not 1 <= n <= block_size:
        raise DataError(f"a text to predict has {n:,} tokens, not from 1 to the {block_size:,} of the model's window")
    return Pair(pair.context[-(block_size + 1 - n) :], pair.continuation)


@torch.inference_mode()
def _score_groups(
    decoder: Decoder, pairs: Sequence[Pair], groups: Sequence[Sequence[int]], max_tokens: int
) -> list[tuple[int, Likelihood]]:
    """Score pairs, whose indices are in groups with the same context."""
    indices = [i for group in groups for i in group]
    texts = [[*pairs[i].context, *pairs[i].continuation] for i in indices]
    check_token(max(map(max, texts)), decoder.config.vocab_size)
    sequences = [torch.tensor(text, dtype=torch.int32).to(torch.uint16) for text in texts]
    data = from_sequences(sequences, [len(pairs[i].context) for i in indices])
    ends = torch.tensor([len(group) for group in groups]).cumsum(0).tolist()
    records = [range(end - len(group), end) for group, end in zip(groups, ends, strict=True)]
    found = []
    for row in rows_of_groups(data, records, max_tokens, torch.device(decoder.device)):
        hidden = decoder.hidden(row.idx.cpu().numpy(), row.sight)[0, row.places.tolist()]
        losses, right = (part.cpu() for part in token_losses(decoder, hidden, row.targets))
        counts = [len(pairs[indices[record]].continuation) for record in row.records]
        parts = zip(torch.split(losses.double(), counts), torch.split(right, counts), strict=True)
        for record, (loss, hits) in zip(row.records, parts, strict=True):
            found.append((indices[record], Likelihood(-loss.sum().item(), bool(hits.all()))))
    if not all(torch.tensor([each.logprob for _, each in found]).isfinite()):
        raise DivergedError("the model's log-probabilities are not finite: try --precision fp32, or another checkpoint")
    return found
