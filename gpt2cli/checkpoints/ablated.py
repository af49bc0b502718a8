"""A stored model without some of its parts: what they add to the residual stream becomes 0.

The output matrix of attention, `attn.c_proj`, multiplies the outputs of the heads, which lie beside each other. Zeros
in the columns of a head take out that head. Zeros in a whole matrix and its bias take out an attention or an MLP.
"""

from collections.abc import Iterable

import numpy as np

from gpt2cli.checkpoints.lazy_arrays import LazyArray, derived
from gpt2cli.checkpoints.mapped_files import Array
from gpt2cli.checkpoints.stored_model import StoredModel, Weights
from gpt2cli.model.part_names import MLP, Head, Part, check_parts


def without_parts(model: StoredModel, parts: Iterable[Part]) -> StoredModel:
    """The model without these parts. Its changed weights are copied, in their stored types, when they are read.

    Raises UsageError for a part that the model does not have.
    """
    parts = list(parts)
    check_parts(parts, model.config)
    arrays = dict(model.weights.arrays)
    for part in parts:
        size = model.config.head_size
        if isinstance(part, Head):
            name = f"h.{part.layer}.attn.c_proj.weight"
            arrays[name] = _with_zeros(arrays[name], slice(part.head * size, (part.head + 1) * size))
            continue
        for leaf in ("weight", "bias"):
            name = f"h.{part.layer}.{'mlp' if isinstance(part, MLP) else 'attn'}.c_proj.{leaf}"
            arrays[name] = _with_zeros(arrays[name], slice(None))
    return StoredModel(model.config, Weights(arrays, model.weights.where), model.origin)


def _with_zeros(weight: LazyArray, columns: slice) -> LazyArray:
    """The weight with zeros in these columns: the last dimension of a matrix (out, in) or a bias (out,)."""

    def fill(values: Array) -> Array:
        values = np.array(values)
        values[..., columns] = 0
        return values

    return derived(fill, weight.shape, weight.dtype, weight)
