"""The model's state dict in what torch.load returns."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from gpt2cli.checkpoints.state_dicts import ALPHAS, BIASES, CONFIGS, HEADS
from gpt2cli.errors import CheckpointError
from gpt2cli.untrusted import shown

# names that training programs give to the entry with the weights; the first that exists is used
_KEYS = (
    *("model", "model_state_dict", "state_dict", "module", "net", "network", "model_state", "model_dict", "weights"),
    *("params", "generator", "policy", "gpt", "gpt2", "lm", "ema", "model_ema", "ema_model", "ema_state_dict"),
    *("checkpoint", "state", "student"),
)
_FACTS = (*CONFIGS, *HEADS, *BIASES, *ALPHAS, "template", "provenance")
"""All entries that are read besides the weights."""
_DEPTH = 4
"""The depth to which nested dicts are searched."""


def find_state_dict(loaded: dict[Any, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of the model by name, and the facts beside them: in the file, and in the dict that holds the model.

    It is a bare state dict, or under a key of `_KEYS`, or under the only key that has tensors. Raises
    CheckpointError, naming the keys, if there are no tensors, or there is more than one dict of them.
    """
    extra: dict[str, Any] = {}
    for _ in range(_DEPTH):
        own = tensors_of(loaded)
        inner = [key for key, value in loaded.items() if isinstance(value, dict) and _holds_tensors(value)]
        chosen = next((key for key in _KEYS if key in inner), None)
        others = [key for key in inner if not str(key).startswith(("optim", "sched", "scaler"))]
        if others and sum(name.endswith(".weight") for name in own) > 1:  # a model, with another one in a dict beside
            others.append("")
            break
        if chosen is None and (len(own) > 1 or (own and not inner)):
            return own, extra | {name: value for name, value in _facts(loaded) if name not in own}
        if chosen is None and len(others) != 1:
            break
        key = others[0] if chosen is None else chosen
        extra |= {name: value for name, value in _facts(loaded) if name != key}
        loaded = loaded[key]
    keys = ", ".join(shown(key) for key in list(loaded)[:5]) or "none"
    what = "more than one state dict" if len(others) > 1 else "no state dict"
    raise CheckpointError(f"holds {what} (its keys: {keys}): save model.state_dict() alone")


def tensors_of(state: dict[Any, Any]) -> dict[str, Tensor]:
    """The entries that are tensors with a name."""
    return {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _facts(entries: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, entries[name]) for name in _FACTS if name in entries)


def _holds_tensors(state: dict[Any, Any], depth: int = _DEPTH) -> bool:
    """Whether there are tensors with names in a dict, or in a dict in it under one of `_KEYS`."""
    if tensors_of(state):
        return True
    inner = (state.get(key) for key in _KEYS)
    return depth > 1 and any(isinstance(value, dict) and _holds_tensors(value, depth - 1) for value in inner)
