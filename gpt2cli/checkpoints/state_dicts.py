"""The names of a model's tensors without those of wrappers such as DataParallel.

A wrapper puts its name before the names of the tensors, or into the middle of them.
"""

import re
from collections.abc import Collection, Iterable, Mapping

from gpt2cli.checkpoints.lazy_arrays import LazyArray, same
from gpt2cli.errors import CheckpointError
from gpt2cli.untrusted import shown

CONFIGS = ("model_args", "config", "model_config", "gpt_config", "hyper_parameters", "hparams", "args", "cfg")
"""Names that projects give to the entry with the model's config: nanoGPT, ours, Lightning, others."""
HEADS = ("n_head", "n_heads", "num_heads", "num_attention_heads")
"""Their names for the number of heads in the config. A bare state dict does not hold it."""
BIASES, ALPHAS = ("bias", "qkv_bias"), ("lora_alpha", "alpha")
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


def plain_names(tensors: Mapping[str, LazyArray], signatures: Collection[str]) -> dict[str, LazyArray]:
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


def _prefixes(name: str, signatures: Collection[str]) -> list[str]:
    """The part of a name before a signature: "" if the name is a signature."""
    ends = (signature for signature in signatures if name == signature or name.endswith("." + signature))
    return [name.removesuffix(signature) for signature in ends]
