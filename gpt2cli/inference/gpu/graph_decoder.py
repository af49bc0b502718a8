"""Decoding by CUDA graphs: for a small model, a GPU runs kernels faster than Python can launch them."""

from importlib.util import find_spec

import torch
from torch import nn

from gpt2cli.inference.decoder import check_graphs
from gpt2cli.inference.gpu.cuda_graphs import GraphSessions
from gpt2cli.inference.torch_decoder import TorchDecoder
from gpt2cli.model.gpt import GPT


class GraphDecoder(TorchDecoder):
    """A TorchDecoder whose decoding steps are CUDA graphs. To capture them delays the first text by some seconds.

    `fused` says whether to use the Triton kernels; None means if they can run. Raises UsageError if the model is not on
    a CUDA device, unless `fused` is given: tests on a CPU give it, and run the same steps without graphs.
    """

    def __init__(self, gpt: GPT, precision: str = "fp32", fused: bool | None = None) -> None:
        super().__init__(gpt, precision)
        if fused is None:
            check_graphs(self.device)
            fused = can_fuse(gpt)
        for parameter in gpt.parameters():
            parameter.data = parameter.data.contiguous()  # the matrices of some checkpoints are not
        self.sessions = GraphSessions(gpt, fused)


def can_fuse(gpt: GPT) -> bool:
    """Whether the Triton kernels can run this model on its CUDA device."""
    layers = [part for part in gpt.h.modules() if hasattr(part, "weight") and not isinstance(part, nn.LayerNorm)]
    return (
        find_spec("triton") is not None
        and torch.version.hip is None  # the kernels contain instructions of NVIDIA's GPUs
        and torch.cuda.get_device_capability(gpt.wte.weight.device) >= (8, 0)
        and all(type(layer) is nn.Linear for layer in layers)
        and len({parameter.dtype for parameter in gpt.parameters()}) == 1
    )
