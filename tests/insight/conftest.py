"""The models on which the laws of an explanation are tested."""

import pytest
import torch

from tests.insight import subjects


@pytest.fixture(scope="session", params=subjects.MODELS)
def model(request):
    """A GPT in fp32. Tests change nothing in it."""
    return subjects.model(request.param)


@pytest.fixture
def ids():
    """A prompt in which tokens occur several times."""
    return torch.randint(9, (20,), generator=torch.Generator().manual_seed(1)).tolist()
