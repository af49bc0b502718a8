"""From a stored model to torch's GPT."""

import torch

from gpt2cli.checkpoints.stored_model import StoredModel
from gpt2cli.checkpoints.torch_arrays import to_tensor
from gpt2cli.model.gpt import GPT


def build(stored: StoredModel) -> GPT:
    """A GPT on the CPU whose parameters are the stored weights: views of the mapped file where these are such views.

    Raises CheckpointError if a value is not finite.
    """
    with torch.device("meta"):
        model = GPT(stored.config)
    model.load_state_dict({name: to_tensor(array) for name, array in stored.weights.items()}, assign=True)
    model.origin = stored.origin
    return model
