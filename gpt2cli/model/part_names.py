"""The names of a model's parts: `9.6` is head 6 of layer 9, `attn.9` its whole attention, `mlp.9` its MLP.

Layers and heads are counted from 0. This module does not import torch.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gpt2cli.config import GPTConfig
from gpt2cli.errors import UsageError
from gpt2cli.untrusted import shown

_NAME = re.compile(r"(?P<layer>[0-9]{1,6})\.(?P<head>[0-9]{1,6})|(?P<kind>attn|mlp)\.(?P<of>[0-9]{1,6})")


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


def parse_parts(*lists: str) -> tuple[Part, ...]:
    """The parts that lists such as `9.6,mlp.3` name, each once. Raises UsageError for a text that is no such name.

    Whether a model has these parts is not known yet: see `check_parts`.
    """
    return tuple(dict.fromkeys(_parse(name.strip()) for names in lists for name in names.split(",")))


def _parse(name: str) -> Part:
    found = _NAME.fullmatch(name)
    if found is None:
        named = shown(name, 40) if name else "an empty name"
        lower = name.lower()
        guess = f"; did you mean {lower}?" if _NAME.fullmatch(lower) else ""
        raise UsageError(f"{named} names no part of a model: write 9.6 (layer.head), attn.9 or mlp.9{guess}")
    if found["kind"]:
        return (MLP if found["kind"] == "mlp" else Attention)(int(found["of"]))
    return Head(int(found["layer"]), int(found["head"]))


def check_parts(parts: Iterable[Part], config: GPTConfig) -> None:
    """Raise UsageError, naming the range, if a model of this shape lacks one of the parts."""
    for part in parts:
        if not 0 <= part.layer < config.n_layer:
            raise UsageError(f"{part} is not there: this model has {_range('layer', config.n_layer)}")
        if isinstance(part, Head) and not 0 <= part.head < config.n_head:
            raise UsageError(f"{part} is not there: a layer of this model has {_range('head', config.n_head)}")


def _range(kind: str, count: int) -> str:
    return f"{kind}s 0 to {count - 1}" if count > 1 else f"only {kind} 0"


def heads_and_mlps(config: GPTConfig) -> list[Part]:
    """Every head and every MLP, layer by layer."""
    found: list[Part] = []
    for layer in range(config.n_layer):
        found += [Head(layer, head) for head in range(config.n_head)]
        found.append(MLP(layer))
    return found
