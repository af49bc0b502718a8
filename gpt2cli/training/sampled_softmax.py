"""Sampled softmax: a loss over a few thousand sampled tokens, instead of the whole vocabulary.

A narrow model with GPT-2's 50,257 tokens spends nearly all its time in the output layer. For most of a run, an estimate
of the softmax's sum from a few thousand tokens trains the model as well ("On Using Very Large Target Vocabulary for
Neural Machine Translation", Jean et al. 2015). Each token is sampled independently, with a probability that grows with
its frequency. A sampled token is weighted by 1 / probability, which makes the sum unbiased.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2cli.data.dataset import TokenDataset

SAMPLED_SHARE = 0.95
"""The share of a run's steps that use it. The last steps use the whole vocabulary, which corrects the rare tokens."""
FLATTENED = 0.75
"""The probability of a token is proportional to count ** FLATTENED, as in word2vec (Mikolov et al. 2013)."""


class Negatives:
    """Samples about `n` tokens of the vocabulary at a time, frequent tokens of `data` with a higher probability."""

    def __init__(self, data: TokenDataset, vocab_size: int, n: int) -> None:
        # plus 1: tokens that never occur are sampled too
        counts = torch.bincount(data.tokens.int(), minlength=vocab_size).double().add(1)
        self.probability = inclusion(counts.pow(FLATTENED), n).float()

    def draw(self, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The ids of the sampled tokens, (S,), ascending, and the logarithms of their probabilities, (S,)."""
        chance = torch.rand(len(self.probability), generator=torch.Generator().manual_seed(seed))
        ids = torch.nonzero(chance < self.probability)[:, 0]
        return ids.to(device), self.probability[ids].log().to(device)


def inclusion(weights: Tensor, n: int) -> Tensor:
    """Probabilities, (V,), proportional to the positive `weights` but at most 1. Their sum is min(n, V)."""
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
    """An estimate of `summed_cross_entropy(hidden, head, targets)` from the tokens of `Negatives.draw`.

    Takes hidden (N, C), head (V, C) and targets (N,). The logits of the targets are always exact.
    """
    ids, log_probability = negatives
    own = (hidden * F.embedding(targets, head)).sum(-1).float()
    others = F.linear(hidden, F.embedding(ids, head).to(hidden.dtype)).float() - log_probability
    at = torch.searchsorted(ids, targets).clamp_(max=len(ids) - 1)  # a sampled target must not count twice
    hits = torch.nonzero(ids[at] == targets)[:, 0]
    others = others.index_put((hits, at[hits]), others.new_tensor(-torch.inf))
    return (torch.logaddexp(others.logsumexp(-1), own) - own).sum()
