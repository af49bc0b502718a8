"""Sampled softmax: a loss over some thousand tokens in place of the whole vocabulary.

A narrow model over GPT-2's 50,257 tokens spends nearly all its time in the output layer. For most of a run an estimate
of the softmax's sum over a few thousand tokens teaches as well ("On Using Very Large Target Vocabulary for Neural
Machine Translation", Jean et al. 2015). Every token is drawn or not by itself, with a probability that grows with how
often it occurs; a drawn one stands in the sum for 1/probability tokens, which makes the sum unbiased.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2cli.data.dataset import TokenDataset

SAMPLED_SHARE = 0.95
"""Of a run's steps; in the rest the whole vocabulary is learned against, so that rare tokens find their level."""
FLATTENED = 0.75
"""The power of a count that its probability is proportional to, as for word2vec's negatives (Mikolov et al. 2013)."""


class Negatives:
    """Draws about `n` of a vocabulary's tokens at a time, those that occur often in `data` more often or always."""

    def __init__(self, data: TokenDataset, vocab_size: int, n: int) -> None:
        counts = torch.bincount(data.tokens.int(), minlength=vocab_size).double()
        self.probability = inclusion(counts.add(1).pow(FLATTENED), n).float()  # one more: who never occurs, learns that

    def draw(self, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The ids of the drawn tokens, (S,) and ascending, and the logarithm of each one's probability, (S,)."""
        chance = torch.rand(len(self.probability), generator=torch.Generator().manual_seed(seed))
        ids = torch.nonzero(chance < self.probability)[:, 0]
        return ids.to(device), self.probability[ids].log().to(device)


def inclusion(weights: Tensor, n: int) -> Tensor:
    """Probabilities proportional to `weights`, (V,) above 0, but at most 1, whose sum is `n` or V, if that is less."""
    probability = torch.ones_like(weights)
    below = torch.ones_like(weights, dtype=torch.bool)
    while n < len(weights):
        left = n - int((~below).sum())
        probability[below] = weights[below] * (left / weights[below].sum())
        if probability.max() <= 1:
            break
        below &= probability < 1
        probability[~below] = 1
    return probability


def sampled_cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor, negatives: tuple[Tensor, Tensor]) -> Tensor:
    """An estimate of `summed_cross_entropy(hidden, head, targets)` from the tokens that `Negatives.draw` gave.

    With hidden (N, C), head (V, C) and targets (N,). The target's own logit is always exact.
    """
    ids, log_probability = negatives
    own = (hidden * F.embedding(targets, head)).sum(-1).float()
    others = F.linear(hidden, F.embedding(ids, head).to(hidden.dtype)).float() - log_probability
    at = torch.searchsorted(ids, targets).clamp_(max=len(ids) - 1)  # a target that was drawn must not count twice
    hits = torch.nonzero(ids[at] == targets)[:, 0]
    others = others.index_put((hits, at[hits]), others.new_tensor(-torch.inf))
    return (torch.logaddexp(others.logsumexp(-1), own) - own).sum()
