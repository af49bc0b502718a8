"""Saliency: how much each token of the prompt moves the target's logit, by gradients at the token embeddings."""

from collections.abc import Iterator

import numpy
import torch
from torch import Tensor

from gpt2cli.config import ExplainConfig
from gpt2cli.insight.events import Advanced, Event
from gpt2cli.insight.findings import Saliency, SaliencyRow
from gpt2cli.insight.passes import embed, logits, run_blocks
from gpt2cli.insight.subject import Subject, token
from gpt2cli.tokenizer import show

TOKENS_AT_ONCE = 512
"""The most tokens of a batch, if a prompt is not longer: a token's intermediate values take 0.6 MB at 124M."""


def saliency(subject: Subject, config: ExplainConfig) -> Iterator[Event]:
    """Gradient x input, and integrated gradients (Sundararajan et al. 2017), summed over each token's channels.

    The baseline of the integral has zeros as token embeddings and the same positions. The path to the prompt's
    embeddings is straight. Gauss-Legendre quadrature takes the gradients at `config.steps` points of it.
    """
    with torch.no_grad():
        embedding, position = embed(subject.model, subject.idx)  # (1, T, C), (T, C)
        baseline = logits(subject.model, run_blocks(subject.model, position[None])[0, -1])
    difference = float(subject.measure(subject.last_logits) - subject.measure(baseline))
    nodes, weights = numpy.polynomial.legendre.leggauss(config.steps)  # of the interval from -1 to 1
    points = embedding.new_tensor([1.0, *((nodes + 1) / 2)])[:, None, None]  # at 1 is the prompt
    shares = embedding.new_tensor([0.0, *(weights / 2)])[:, None, None]
    integral, gradient = torch.zeros_like(embedding[0]), torch.zeros_like(embedding[0])
    rows = max(1, TOKENS_AT_ONCE // len(position))
    for start in range(0, len(points), rows):
        found = _gradients(subject, points[start : start + rows] * embedding, position)
        integral += (shares[start : start + rows] * found).sum(0)
        if start == 0:
            gradient = found[0]
        yield Advanced("saliency", min(start + rows, len(points)), len(points))
    products = [(values * embedding[0]).sum(-1).tolist() for values in (gradient, integral)]
    tokens = tuple(SaliencyRow(show(id), id, *row) for id, *row in zip(subject.question.prompt, *products, strict=True))
    gap = sum(products[1]) - difference
    yield Saliency(token(subject.target), subject.foil, tokens, difference, gap, config.steps)


@torch.enable_grad()
def _gradients(subject: Subject, embeddings: Tensor, position: Tensor) -> Tensor:
    """The gradients (B, T, C) of the measured number with respect to token embeddings (B, T, C)."""
    embeddings = embeddings.detach().requires_grad_()
    final = run_blocks(subject.model, embeddings + position)
    measured = subject.measure(logits(subject.model, final[:, -1]))
    (found,) = torch.autograd.grad(measured.sum(), embeddings)
    return found
