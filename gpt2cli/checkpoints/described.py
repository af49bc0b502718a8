"""A model as the headers of its files describe it, without its weights."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpt2cli.checkpoints.adapters import Adapter, read_adapter
from gpt2cli.checkpoints.configs import config_shape
from gpt2cli.checkpoints.hub_layout import check_hub_config
from gpt2cli.checkpoints.lazy_arrays import LazyArray
from gpt2cli.checkpoints.metadata import Metadata
from gpt2cli.checkpoints.model_shape import parameter_shapes
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.read_model import add_adapter
from gpt2cli.checkpoints.stored_model import StoredModel, Weights
from gpt2cli.config import GPTConfig
from gpt2cli.errors import NetworkError
from gpt2cli.hub.config_file import fetch_config
from gpt2cli.hub.names import parse_name, short_name
from gpt2cli.model.origin import Origin
from gpt2cli.paths import expand
from gpt2cli.progress import Progress, ignore
from gpt2cli.published import DEFAULT_MODEL, PUBLISHED


@dataclass(frozen=True)
class AdapterSize:
    """A LoRA adapter: the model that it names as its base, its rank, and the number of its parameters."""

    base: str | None
    rank: int
    parameters: int


@dataclass(frozen=True)
class Described:
    """What is known of a model without reading its weights.

    stored_as  how most of the weights are stored: int4, int8, or for example float32; None if no file of them is here
    facts      the prompt template and the provenance
    adapter    None for a whole model
    """

    config: GPTConfig
    stored_as: str | None
    facts: Metadata
    adapter: AdapterSize | None


def describe(spec: ModelSpec, progress: Progress = ignore) -> Described:
    """Read the headers of a model's files. Of a model of the Hub that is not here, only its config is downloaded.

    The shape of a published model is known, so nothing is downloaded for it. The matrices of an adapter are read. Only
    a `.pt` file needs torch. Raises UsageError, CheckpointError, ResourceError or NetworkError.
    """
    adapter = read_adapter(expand(spec.ckpt)) if spec.ckpt and spec.names_adapter else None
    size = None if adapter is None else _size_of(adapter)
    facts = spec.metadata()
    try:
        model = replace(spec, offline=True).read_stored(progress, only_shape=True)
    except NetworkError:
        name = spec.model or (size and size.base) or DEFAULT_MODEL
        model = _without_weights(_shape_on_hub(name, spec.offline, progress))
        if adapter is not None:
            model = add_adapter(model, adapter)
        return Described(model.config, None, facts, size)
    return Described(model.config, _stored_as(model), facts, size)


def _size_of(adapter: Adapter) -> AdapterSize:
    parts = (adapter.tensors, adapter.magnitudes, adapter.biases)
    numbers = sum(int(np.prod(tensor.shape)) for part in parts for tensor in part.values())
    return AdapterSize(adapter.base, adapter.config.rank, numbers)


def _shape_on_hub(name: str, offline: bool, progress: Progress) -> GPTConfig:
    """The shape of a model of the Hub that is not on this machine."""
    published = PUBLISHED.get(short_name(parse_name(name)[0]))
    if published is not None:
        return published.config
    config = fetch_config(name, offline=offline, progress=progress)
    check_hub_config(config, Path(name))
    return config_shape(config, name)


def _without_weights(config: GPTConfig) -> StoredModel:
    """A model of this shape whose weights cannot be read."""
    dtype: np.dtype[Any] = np.dtype(np.float32)
    arrays = {name: LazyArray(shape, dtype, None) for name, shape in parameter_shapes(config).items()}
    return StoredModel(config, Weights(arrays, "a model that is not here"), Origin())


def _stored_as(model: StoredModel) -> str:
    """The type that most of the weights are stored in."""
    if model.origin.precision != "fp32":
        return model.origin.precision
    numbers: Counter[str] = Counter()
    for array in model.weights.arrays.values():
        numbers[str(array.dtype)] += int(np.prod(array.shape))
    return numbers.most_common(1)[0][0]
