"""The names that other projects give to GPT-2's weights.

Our names are the Hub's, with torch's orientation of a linear layer, (out, in). In all names, `*` stands for the number
of a block. Where three names stand for one of ours, query, key and value are separate.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from gpt2cli.checkpoints.lazy_arrays import LazyArray, joined, same, zeros
from gpt2cli.checkpoints.lora_layers import merge_lora_layers
from gpt2cli.checkpoints.state_dicts import extra_heads, plain_names
from gpt2cli.errors import CheckpointError
from gpt2cli.untrusted import shown

MATRICES = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


@dataclass(frozen=True)
class Dialect:
    """How one project names its tensors."""

    name: str
    signature: str  # the name of a tensor that no other project uses
    modules: Mapping[str, list[str]]  # by our name of a module, theirs, or theirs for query, key and value
    norm_leaves: Mapping[str, str] = field(default_factory=dict)  # their names for a LayerNorm's weight and bias
    buffers: tuple[str, ...] = ()  # the ends of the names of causal masks, which are no weights
    conv1d: bool = False  # matrices are stored (in, out), as in OpenAI's code
    qkv_bias_optional: bool = False
    wrapper: str = ""  # the prefix in a saved model of all names but the head's


_NAMES = {
    # ours, and those of the original project, llama.cpp, LLMs-from-scratch, and its GPTModelFast where they differ
    "wte": ("tok_emb", "token_embd", "tok_emb"),
    "wpe": ("pos_emb", "position_embd", "pos_emb"),
    "h.*.ln_1": ("trf_blocks.*.ln1", "blk.*.attn_norm", "trf_blocks.*.norm1"),
    "h.*.attn.c_attn": (
        "trf_blocks.*.attn.qkv",
        "blk.*.attn_qkv",
        "trf_blocks.*.att.W_query trf_blocks.*.att.W_key trf_blocks.*.att.W_value",
        "trf_blocks.*.att.qkv",
    ),
    "h.*.attn.c_proj": (
        "trf_blocks.*.attn.out_proj",
        "blk.*.attn_output",
        "trf_blocks.*.att.out_proj",
        "trf_blocks.*.att.proj",
    ),
    "h.*.ln_2": ("trf_blocks.*.ln2", "blk.*.ffn_norm", "trf_blocks.*.norm2"),
    "h.*.mlp.c_fc": ("trf_blocks.*.mlp.fc1", "blk.*.ffn_up", "trf_blocks.*.ff.layers.0"),
    "h.*.mlp.c_proj": ("trf_blocks.*.mlp.fc2", "blk.*.ffn_down", "trf_blocks.*.ff.layers.2"),
    "ln_f": ("final_norm", "output_norm", "final_norm"),
    "lm_head": ("out_head", "output", "out_head"),
}
_OURS = {name: [name] for name in _NAMES}
_ORIGINAL, _LLAMA_CPP, _FROM_SCRATCH, _FAST = (
    {ours: theirs[min(column, len(theirs) - 1)].split() for ours, theirs in _NAMES.items()} for column in range(4)
)
_MASKS = (".attn.bias", ".attn.masked_bias")
_LLMS_FROM_SCRATCH = Dialect(
    "LLMs-from-scratch",
    "trf_blocks.0.att.W_query.weight",
    _FROM_SCRATCH,
    norm_leaves={"weight": "scale", "bias": "shift"},
    buffers=(".att.mask",),
    qkv_bias_optional=True,
)
DIALECTS = (
    # openai-community/gpt2 and what transformers' save_pretrained writes
    Dialect("hub", "h.0.attn.c_attn.weight", _OURS, buffers=_MASKS, conv1d=True, wrapper="transformer."),
    # nanoGPT's and ours differ from the Hub's only in orientation, which the shapes show
    Dialect("nanogpt", "h.0.attn.c_attn.weight", _OURS, buffers=_MASKS, wrapper="transformer."),
    Dialect("original", "trf_blocks.0.attn.qkv.weight", _ORIGINAL, buffers=(".attn.mask",), qkv_bias_optional=True),
    Dialect("gguf", "blk.0.attn_qkv.weight", _LLAMA_CPP),
    _LLMS_FROM_SCRATCH,
    replace(
        _LLMS_FROM_SCRATCH, name="LLMs-from-scratch, fused", signature="trf_blocks.0.att.qkv.weight", modules=_FAST
    ),
)
SIGNATURES = frozenset(dialect.signature for dialect in DIALECTS)


def recognise(tensors: dict[str, LazyArray]) -> Dialect:
    """The dialect of a state dict whose wrappers are stripped. Raises CheckpointError if it is none of them."""
    for dialect in DIALECTS:
        qkv = tensors.get(dialect.signature)
        if qkv is not None and qkv.ndim == 2 and (not dialect.conv1d or 3 * qkv.shape[0] == qkv.shape[1]):
            return dialect
    names = {dialect.signature: _unknown(tensors, dialect) for dialect in DIALECTS}
    signature = min(names, key=lambda signature: len(names[signature]))
    if not names[signature]:
        raise CheckpointError(f"it has no matrix {signature}: it is not a GPT-2, or not a whole one")
    some = ", ".join(shown(name)[1:-1] for name in names[signature][:5])
    raise CheckpointError(f"no GPT-2 that gpt2cli knows has tensors with these names: {some}")


def to_ours(
    tensors: dict[str, LazyArray],
    *,
    biases: bool = True,
    tied: bool | None = None,
    lora_alpha: float | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, LazyArray]:
    """The same weights under our names and in our orientation, which are computed when they are read.

    A head equal to the token embedding is left out, since the model ties them. If they are `tied`, or this is unknown,
    a head alone becomes the embedding. Missing biases become zeros: all of them without `biases`, which nanoGPT can
    leave out, or those of query, key and value in dialects that allow it. Heads beside the language model's are left
    out, and LoRA beside its layers is merged; `note` gets a text about it. Unknown names stay as they are, and `build`
    refuses them. The tensors must have passed `limits.check_model_tensors`. Raises CheckpointError, naming the tensor,
    for query, key and value that do not fit each other, and for two models in one.
    """
    tensors = plain_names(merge_lora_layers(tensors, lora_alpha, note), SIGNATURES)
    dialect = recognise(tensors)
    left = {name: tensor for name, tensor in tensors.items() if not name.endswith(dialect.buffers)}
    ours: dict[str, LazyArray] = {}
    n_layer = _count_blocks(left, dialect)
    for module in dialect.modules:
        for block in range(n_layer if "*" in module else 1):
            _take(left, ours, dialect, module, str(block))
    _tie(ours, tied, note)
    if heads := extra_heads(left):
        note(f"left out {', '.join(map(shown, heads[:5]))}: a head beside the language model's")
        for name in heads:
            del left[name]
    if not biases:
        _add_zero_biases(ours, ("ln_1", "c_attn", "c_proj", "ln_2", "c_fc", "ln_f"))
    elif dialect.qkv_bias_optional and "h.0.attn.c_attn.bias" not in ours:
        _add_zero_biases(ours, ("attn.c_attn",))
    return ours | left


def _unknown(tensors: dict[str, LazyArray], dialect: Dialect) -> list[str]:
    """The names of tensors that a dialect does not know."""
    modules = [name for names in dialect.modules.values() for name in names]
    leaves = "|".join({"weight", "bias", *dialect.norm_leaves.values()})
    known = re.compile(f"(?:{'|'.join(map(re.escape, modules))})".replace(r"\*", r"\d+") + rf"\.(?:{leaves})")
    return sorted(name for name in tensors if not known.fullmatch(name) and not name.endswith(dialect.buffers))


def _tie(ours: dict[str, LazyArray], tied: bool | None, note: Callable[[str], None]) -> None:
    """If the embedding and the head are equal, or one is missing, keep one tensor, named as the embedding."""
    if "wte.weight" not in ours and "lm_head.weight" in ours and tied is not False:
        ours["wte.weight"] = ours.pop("lm_head.weight")
        if tied is None:
            note("has a head and no token embedding: the head is taken for both")
    elif "lm_head.weight" in ours and same(ours["lm_head.weight"], ours.get("wte.weight")):
        del ours["lm_head.weight"]


def _count_blocks(tensors: dict[str, LazyArray], dialect: Dialect) -> int:
    """The number of transformer blocks: one more than the largest block number in a name."""
    prefix = re.escape(dialect.signature.split("0.")[0])
    numbers = [int(found[1]) for name in tensors if (found := re.match(rf"{prefix}(\d{{1,6}})\.", name))]
    return min(max(numbers) + 1, len(tensors))


def _take(left: dict[str, LazyArray], ours: dict[str, LazyArray], dialect: Dialect, module: str, block: str) -> None:
    """Move one module's weight and bias from `left`, where they have their names, to `ours`."""
    sources = dialect.modules[module]
    for leaf in ("weight", "bias"):
        # a model can also use torch's LayerNorm
        leaves = (dialect.norm_leaves.get(leaf, leaf), leaf) if "ln_" in module else (leaf,)
        spelled = ([f"{name}.{their_leaf}".replace("*", block) for name in sources] for their_leaf in leaves)
        names = next((names for names in spelled if all(name in left for name in names)), None)
        if names is None:
            continue
        parts = [left.pop(name) for name in names]
        if any(part.ndim == 0 or part.shape != parts[0].shape for part in parts[1:]):
            shapes = ", ".join(f"{name} {tuple(part.shape)}" for name, part in zip(names, parts, strict=True))
            raise CheckpointError(f"query, key and value differ in shape ({shapes}): fetch or save them again")
        name = f"{module}.{leaf}".replace("*", block)
        tensor = joined(parts)
        ours[name] = tensor.transposed() if dialect.conv1d and name.endswith(MATRICES) and tensor.ndim == 2 else tensor


def _add_zero_biases(ours: dict[str, LazyArray], modules: tuple[str, ...]) -> None:
    for name in [name for name in ours if name.endswith(tuple(f"{module}.weight" for module in modules))]:
        ours.setdefault(name.removesuffix("weight") + "bias", zeros(ours[name].shape[:1], ours[name].dtype))
