"""The config of a checkpoint: in the file, under one of many names, or in a config.json beside it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt2cli.checkpoints.files import Contents
from gpt2cli.checkpoints.headers import read_json
from gpt2cli.checkpoints.lazy_arrays import LazyArray
from gpt2cli.checkpoints.state_dicts import ALPHAS, BIASES, CONFIGS, HEADS
from gpt2cli.config import HEAD_SIZE, GPTConfig
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.published import PUBLISHED
from gpt2cli.untrusted import is_file, parse_json, shown

_NESTED = (*CONFIGS, "model", "gpt")
_WIDTHS = ("n_embd", "emb_dim", "hidden_size", "d_model")
_TABLES = ("wte.weight", "tok_emb.weight", "token_embd.weight", "lm_head.weight", "out_head.weight")
_PUBLISHED_WIDTHS = {model.config.n_embd for model in PUBLISHED.values()}


def config_in(extra: Mapping[str, Any]) -> dict[str, Any]:
    """The config in a file's facts: the first with the number of heads, or else the first that mentions biases."""
    found = list(_configs(extra))
    for names in (HEADS, BIASES):
        for config in found:
            if any(name in config for name in names):
                return config
    return {}


def has_heads(config: Mapping[str, Any]) -> bool:
    """Whether a config gives the number of heads."""
    return any(name in config for name in HEADS)


def config_beside(path: Path, tensors: Mapping[str, LazyArray]) -> dict[str, Any]:
    """The `config.json` beside a file, if it exists and describes a model of this width; otherwise an empty dict."""
    file = path.parent / "config.json"
    if not is_file(file):
        return {}
    config = read_json(file)
    width = next((config[name] for name in _WIDTHS if name in config), None)
    tables = [tensor for name, tensor in tensors.items() if name.endswith(_TABLES) and tensor.ndim == 2]
    return config if type(width) is int and any(table.shape[1] == width for table in tables) else {}


def assumed_heads(config: Mapping[str, Any], n_embd: int) -> str | None:
    """A note about an assumed number of heads. None if the config gives it, or the width is a published model's."""
    if has_heads(config) or n_embd in _PUBLISHED_WIDTHS:
        return None
    return (
        f"it does not say how many heads it has: {n_embd // HEAD_SIZE} heads of {HEAD_SIZE} are assumed; "
        "to change that, put a config.json with n_embd and n_head beside it"
    )


def decoded(value: Any) -> Any:
    """A fact decoded. In the header of safetensors, all facts but texts are JSON."""
    try:
        return parse_json(value) if isinstance(value, str) else value
    except ValueError:
        return value


def tied_in(config: Mapping[str, Any], contents: Contents) -> bool | None:
    """Whether the head is the embedding, so that the file may hold only one of them. None if nothing says it.

    The header of `safetensors.torch.save_model` gives a left out tensor's name, and that of its equal.
    """
    left_out = ((name, kept) for name, kept in contents.extra.items() if isinstance(kept, str))
    if any(kept in contents.tensors and name not in contents.tensors for name, kept in left_out):
        return True
    tied = config.get("tie_word_embeddings", config.get("tied"))
    return tied if isinstance(tied, bool) else None


def alpha_in(config: Mapping[str, Any], extra: Mapping[str, Any]) -> float | None:
    """The alpha of LoRA layers that are saved in the model's file (see `lora_layers`), or None if nothing says it."""
    entries = [decoded(place[name]) for place in (config, extra) for name in ALPHAS if name in place]
    numbers = [entry for entry in entries if isinstance(entry, int | float) and not isinstance(entry, bool)]
    return next((float(number) for number in numbers if abs(number) < 2**53), None)


def config_shape(config: Mapping[str, Any], where: object) -> GPTConfig:
    """The shape that a `config.json` of the Hub gives; what it leaves out is as in the 124M model.

    Raises CheckpointError, naming the field, for an impossible shape. The weights may still differ from it.
    """
    names = {"n_layer": "n_layer", "n_head": "n_head", "n_embd": "n_embd", "vocab_size": "vocab_size"}
    names |= {"n_positions": "block_size", "layer_norm_epsilon": "layer_norm_epsilon", "tie_word_embeddings": "tied"}
    given = {ours: config[theirs] for theirs, ours in names.items() if theirs in config}
    for name, value in given.items():
        kind = type(getattr(GPTConfig, name))
        if type(value) is not kind:
            raise CheckpointError(f"{where}: {name} is {shown(value)}, not of type {kind.__name__}: use another model")
    try:
        return GPTConfig(**given)
    except UsageError as error:
        raise CheckpointError(f"{where}: {error}: use another model") from None


def _configs(extra: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The dicts that may be a config: each is followed by those inside it, and the file's own entries are last."""
    for key in CONFIGS:
        config = decoded(extra.get(key))
        if isinstance(config, dict):
            yield config
            for inner in (config.get(name) for name in _NESTED):
                if isinstance(inner, dict):
                    yield inner
    yield {name: decoded(extra[name]) for name in (*HEADS, *BIASES) if name in extra}
