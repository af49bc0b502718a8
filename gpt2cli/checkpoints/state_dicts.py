"""The model's state dict in a checkpoint, and the names of its tensors without those of wrappers such as DataParallel.

A wrapper puts its name before the names of the tensors, or into the middle of them.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from gpt2cli.errors import CheckpointError
from gpt2cli.untrusted import shown

# names that training programs give to the entry with the weights; the first that exists is used
_KEYS = (
    *("model", "model_state_dict", "state_dict", "module", "net", "network", "model_state", "model_dict", "weights"),
    *("params", "generator", "policy", "gpt", "gpt2", "lm", "ema", "model_ema", "ema_model", "ema_state_dict"),
    *("checkpoint", "state", "student"),
)
CONFIGS = ("model_args", "config", "model_config", "gpt_config", "hyper_parameters", "hparams", "args", "cfg")
"""Names that projects give to the entry with the model's config: nanoGPT, ours, Lightning, others."""
HEADS = ("n_head", "n_heads", "num_heads", "num_attention_heads")
"""Their names for the number of heads in the config. A bare state dict does not hold it."""
BIASES, ALPHAS = ("bias", "qkv_bias"), ("lora_alpha", "alpha")
_FACTS = (*CONFIGS, *HEADS, *BIASES, *ALPHAS, "template", "provenance")
"""All entries that are read besides the weights."""
_DEPTH = 4
"""The depth to which nested dicts are searched."""

# torch.compile, FSDP, DeepSpeed and torchao, activation checkpointing, DataParallel: of a whole model or of a part
_INSIDE = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_forward_module|_checkpoint_wrapped_module|_flat_param|module)\."
)
# transformers, nanoGPT, Lightning, TRL
_BEFORE = re.compile(r"^(?:(?:transformer|model|pretrained_model)\.)+")

# value heads, classifiers: any head but the language model's
_EXTRA_HEADS = re.compile(
    r"(?:score|classifier|qa_outputs|critic|value|(?!(?:lm|out)_head(?:\.|\Z))[^.]*_head)(?:\.|\Z)"
    r"|lm_head\.decoder\.weight\Z"
)
_DEEPEST = 20
"""Modules around a model that are looked through."""


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


def plain_names(tensors: Mapping[str, Tensor], signatures: Collection[str]) -> dict[str, Tensor]:
    """The tensors under the names that they have in the model that was wrapped.

    `signatures` are names of tensors that only a GPT-2 has. Raises CheckpointError, naming the tensors, if there are
    two models: names that become equal although the tensors differ, or a signature under two prefixes.
    """
    plain = {name: _BEFORE.sub("", _INSIDE.sub("", name)) for name in tensors}
    prefixes = sorted({prefix for name in plain.values() for prefix in _prefixes(name, signatures)})
    if len(prefixes) > 1:
        some = " and ".join(shown(prefix, 40) for prefix in prefixes[:2])
        raise CheckpointError(
            f"it holds more than one model, with names that begin with {some}: save one of them alone"
        )
    parts = prefixes[0].split(".")[:-1] if prefixes else []
    if len(parts) > _DEEPEST:
        raise CheckpointError(f"its names begin with {shown(prefixes[0], 40)}: save the state dict of the GPT-2 alone")
    outer = [".".join(parts[:count]) + "." for count in range(len(parts), 0, -1)]  # the longest first
    found: dict[str, str] = {}
    for name, short in plain.items():
        prefix = next((prefix for prefix in outer if short.startswith(prefix)), "")
        short = _BEFORE.sub("", short[len(prefix) :])
        if short in found and not same(tensors[found[short]], tensors[name]):
            first, second = shown(found[short], 100), shown(name, 100)
            raise CheckpointError(
                f"it holds more than one model: {first} and {second} are different tensors of one name: "
                "save one of the models alone"
            )
        found.setdefault(short, name)
    return {short: tensors[name] for short, name in found.items()}


def extra_heads(names: Iterable[str]) -> list[str]:
    """The names that belong to a head beside the language model's, such as a value head or a classifier."""
    return [name for name in names if _EXTRA_HEADS.match(name)]


def same(a: Tensor, b: Tensor | None) -> bool:
    """Whether two tensors have the same shape and values. On the meta device they have no values."""
    return b is not None and a.shape == b.shape and (a.is_meta or a.data_ptr() == b.data_ptr() or torch.equal(a, b))


def _prefixes(name: str, signatures: Collection[str]) -> list[str]:
    """The part of a name before a signature: "" if the name is a signature."""
    ends = (signature for signature in signatures if name == signature or name.endswith("." + signature))
    return [name.removesuffix(signature) for signature in ends]
