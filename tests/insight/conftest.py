"""The models on which the laws of an explanation are tested: random weights, and the bundled model."""

import pytest
import torch

from gpt2cli.checkpoints.load import load_plain
from tests import models


@pytest.fixture(scope="session", params=["random", "tiny"])
def model(request):
    """A GPT in fp32. Tests change nothing in it."""
    return models.small_model() if request.param == "random" else load_plain("tiny", device="cpu")


@pytest.fixture
def ids():
    """A prompt in which tokens occur several times."""
    return torch.randint(9, (20,), generator=torch.Generator().manual_seed(1)).tolist()
