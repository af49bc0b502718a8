"""The shape of a model, from its tensors and from its config, and whether the tensors fit it."""

from collections.abc import Mapping
from typing import Any

from gpt2cli.checkpoints.lazy_arrays import LazyArray
from gpt2cli.checkpoints.limits import MAX_BLOCKS
from gpt2cli.checkpoints.state_dicts import HEADS
from gpt2cli.checkpoints.tensor_checks import WEIGHT_TYPES
from gpt2cli.config import HEAD_SIZE, GPTConfig
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.untrusted import shown, shown_name


def read_shape(tensors: Mapping[str, LazyArray], config: dict[str, Any], where: object) -> GPTConfig:
    """The shape of a model with these tensors (under our names). `config` gives only what they do not determine.

    Raises CheckpointError, naming the field, if `config` contradicts the tensors or the number of heads is unknown.
    """
    for name in ("wte.weight", "wpe.weight"):
        if name not in tensors or tensors[name].ndim != 2:
            raise CheckpointError(f"{where} has no matrix {name}: it is not a GPT-2, or not a whole one")
    vocab_size, n_embd = tensors["wte.weight"].shape
    block_size = tensors["wpe.weight"].shape[0]
    n_layer = sum(name.endswith(".ln_1.weight") for name in tensors)
    if n_layer > MAX_BLOCKS:
        raise CheckpointError(f"{where} has {n_layer} blocks, more than {MAX_BLOCKS}: it is no GPT-2")
    in_weights = {"n_layer": n_layer, "n_embd": n_embd, "n_positions": block_size, "vocab_size": vocab_size}
    for name, value in in_weights.items():
        if config.get(name, value) != value:
            raise CheckpointError(f"{where}: {name} is {shown(config[name])} in the config, but {value} in the weights")
    epsilon = config.get("layer_norm_epsilon", GPTConfig.layer_norm_epsilon)
    if not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
        raise CheckpointError(f"{where}: layer_norm_epsilon is {shown(epsilon)}, not a small number")
    n_head = next((config[name] for name in HEADS if name in config), None)
    if n_head is None and n_embd % HEAD_SIZE:
        raise CheckpointError(
            f"{where} does not say how many heads it has: put a config.json with n_embd and n_head beside it"
        )
    if n_head is not None and not (type(n_head) is int and 1 <= n_head <= n_embd):
        raise CheckpointError(f"{where}: n_head is {shown(n_head)}, not a number of heads in a width of {n_embd}")
    try:
        return GPTConfig(
            n_layer=n_layer,
            n_head=n_embd // HEAD_SIZE if n_head is None else n_head,
            n_embd=n_embd,
            block_size=block_size,
            vocab_size=vocab_size,
            layer_norm_epsilon=epsilon,
            tied="lm_head.weight" not in tensors,
        )
    except UsageError as error:
        raise CheckpointError(f"{where}: {error}") from None


def check_fit(config: GPTConfig, tensors: Mapping[str, LazyArray], where: object) -> None:
    """Raise CheckpointError, naming up to five tensors, unless these are the weights of a model of this shape."""
    wanted = parameter_shapes(config)
    complaints = [f"{name} is missing" for name in wanted if name not in tensors]
    complaints += [f"{shown_name(name)} is unknown" for name in tensors if name not in wanted]
    for name, tensor in tensors.items():
        if name not in wanted:
            continue
        if tensor.shape != wanted[name]:
            complaints.append(f"{name} is {tensor.shape}, not {wanted[name]}")
        elif tensor.dtype not in WEIGHT_TYPES:
            complaints.append(f"{name} is {tensor.dtype}, not floating point")
    if complaints:
        more = f", and {len(complaints) - 5} more" if len(complaints) > 5 else ""
        raise CheckpointError(f"{where} does not fit: {', '.join(complaints[:5])}{more}: fetch or save it again")


def parameter_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a GPT's parameters, in the order of the modules."""
    width = config.n_embd
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config.vocab_size, width),
        "wpe.weight": (config.block_size, width),
    }
    for block in range(config.n_layer):
        for module, out, n_in in (
            ("ln_1", width, None),
            ("attn.c_attn", 3 * width, width),
            ("attn.c_proj", width, width),
            ("ln_2", width, None),
            ("mlp.c_fc", 4 * width, width),
            ("mlp.c_proj", width, 4 * width),
        ):
            shapes[f"h.{block}.{module}.weight"] = (out,) if n_in is None else (out, n_in)
            shapes[f"h.{block}.{module}.bias"] = (out,)
    shapes |= {"ln_f.weight": (width,), "ln_f.bias": (width,)}
    return shapes if config.tied else shapes | {"lm_head.weight": (config.vocab_size, width)}
