"""What surrounds a training run."""

import pytest
import torch

from gpt2cli.cli.training import advising_on_memory
from gpt2cli.errors import ResourceError


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_too_little_memory_comes_with_advice_whenever_it_is_noticed(error):
    with (
        pytest.raises(ResourceError, match="cpu is out of memory: try a smaller --batch-size"),
        advising_on_memory("cpu"),
    ):
        raise error


def test_other_errors_are_left_as_they_are():
    with pytest.raises(RuntimeError, match="shapes"), advising_on_memory("cpu"):
        raise RuntimeError("shapes")
