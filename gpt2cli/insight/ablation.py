"""Ablation: each head and each MLP is taken out in turn, and the target's probability is measured again."""

from collections.abc import Iterator

import torch
from torch import Tensor

from gpt2cli.config import ExplainConfig
from gpt2cli.insight.events import Advanced, Event
from gpt2cli.insight.findings import Ablation, Change
from gpt2cli.insight.passes import Site, Trace
from gpt2cli.insight.subject import Subject, token
from gpt2cli.insight.swaps import Swap, measure_swaps
from gpt2cli.model.part_names import heads_and_mlps


def ablation(subject: Subject, config: ExplainConfig) -> Iterator[Event]:
    """The change of the target's log-probability, or of target minus foil, without each part.

    The stream before a layer does not depend on the layer's parts, so a layer's ablations are one batch of passes that
    begin at this layer.
    """
    model, trace = subject.model, subject.trace
    whole = float(_measure(subject, subject.last_logits))
    streams = trace.streams()
    measured: list[float] = []
    for layer in range(model.config.n_layer):
        swaps = _swaps(trace, layer, config.ablation)
        measured += measure_swaps(model, streams[2 * layer], layer, swaps, lambda last: _measure(subject, last))
        yield Advanced("ablation", layer + 1, model.config.n_layer)
    parts = heads_and_mlps(model.config)
    rows = tuple(Change(str(part), value - whole) for part, value in zip(parts, measured, strict=True))
    yield Ablation(token(subject.target), rows)


def _measure(subject: Subject, last: Tensor) -> Tensor:
    """The number (...) of logits (..., V) that an ablation changes."""
    return subject.measure(last if subject.question.foil is not None else last.log_softmax(dim=-1))


def _swaps(trace: Trace, layer: int, replaced: str) -> list[Swap]:
    """The ablations of a layer, in the order of `heads_and_mlps`."""
    heads = _replacement(trace.mixes[layer][0], replaced)  # (H, T, D)
    mlp = _replacement(trace.mlp[layer][0], replaced)  # (T, C)
    return [*(Swap(Site.HEADS, head, value) for head, value in enumerate(heads)), Swap(Site.MLP, None, mlp)]


def _replacement(values: Tensor, replaced: str) -> Tensor:
    """What replaces values (..., T, C): zeros, or their mean over the tokens."""
    return torch.zeros_like(values) if replaced == "zero" else values.mean(dim=-2, keepdim=True).expand_as(values)
