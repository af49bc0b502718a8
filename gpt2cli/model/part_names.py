"""The names of a model's parts: `9.6` is head 6 of layer 9, `attn.9` its whole attention, `mlp.9` its MLP.

Layers and heads are counted from 0. This module does not import torch.
"""

import re
from dataclasses import dataclass

from gpt2cli.config import GPTConfig
from gpt2cli.errors import UsageError

_NAME = re.compile(r"(?P<layer>\d+)\.(?P<head>\d+)|(?P<kind>attn|mlp)\.(?P<of>\d+)")


@dataclass(frozen=True)
class Head:
    """One attention head: what it adds to the residual stream, without the layer's bias."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}"


@dataclass(frozen=True)
class Attention:
    """All heads of a layer, and the bias of the attention's output."""

    layer: int

    def __str__(self) -> str:
        return f"attn.{self.layer}"


@dataclass(frozen=True)
class MLP:
    """The MLP of a layer, with its bias."""

    layer: int

    def __str__(self) -> str:
        return f"mlp.{self.layer}"


Part = Head | Attention | MLP
"""A part of the model that adds to the residual stream."""


def parse_parts(text: str, config: GPTConfig) -> tuple[Part, ...]:
    """The parts that a list such as `9.6,mlp.3` names. Raises UsageError for a wrong name, or one that is not there."""
    return tuple(_parse(name.strip(), config) for name in text.split(","))


def _parse(name: str, config: GPTConfig) -> Part:
    found = _NAME.fullmatch(name)
    if found is None:
        raise UsageError(f"{name or 'an empty name'} names no part: write 9.6 (layer.head), attn.9 or mlp.9")
    layer = int(found["layer"] or found["of"])
    if layer >= config.n_layer:
        raise UsageError(f"there is no layer {layer} ({name}): this model has layers 0 to {config.n_layer - 1}")
    if found["kind"]:
        return MLP(layer) if found["kind"] == "mlp" else Attention(layer)
    head = int(found["head"])
    if head >= config.n_head:
        raise UsageError(f"there is no head {head} ({name}): this model has heads 0 to {config.n_head - 1}")
    return Head(layer, head)


def heads_and_mlps(config: GPTConfig) -> list[Part]:
    """Every head and every MLP, layer by layer."""
    found: list[Part] = []
    for layer in range(config.n_layer):
        found += [Head(layer, head) for head in range(config.n_head)]
        found.append(MLP(layer))
    return found
