"""The same memory as a tensor of torch and as an array of NumPy, which has bf16 from ml_dtypes."""

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from gpt2cli.checkpoints.lazy_arrays import LazyArray
from gpt2cli.checkpoints.mapped_files import Array


def to_array(tensor: Tensor) -> Array:
    """A dense tensor in main memory as an array. Raises TypeError for a type that NumPy does not have."""
    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:
        bf16: Array = tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return bf16
    array: Array = tensor.numpy()
    return array


def to_tensor(array: Array) -> Tensor:
    """An array as a tensor."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_tensors(arrays: Mapping[str, LazyArray]) -> dict[str, Tensor]:
    """The tensors of a file, such as those that `read_safetensors` returns. Mapped files stay mapped."""
    return {name: to_tensor(array.read()) for name, array in arrays.items()}
