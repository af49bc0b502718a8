"""`Decoder`, the interface of a model for inference, and the choice among CPUDecoder, GraphDecoder and TorchDecoder."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from gpt2cli.config import GPTConfig
from gpt2cli.inference.gpu.cuda_graphs import GraphSessions
from gpt2cli.inference.gpu.graph_decoder import GraphDecoder, check_graphs
from gpt2cli.inference.torch_decoder import TorchDecoder, move
from gpt2cli.model.cache import KVCache
from gpt2cli.model.device import computes_bf16
from gpt2cli.model.gpt import GPT
from gpt2cli.model.origin import Origin
from gpt2cli.model.packed_row import PackedRow
from gpt2cli.model.torch_precisions import DTYPES

PRECISIONS = (*DTYPES, "int8", "int4")
"""The formats of weights in memory during inference."""


class Decoder(Protocol):
    """A model that is ready to run.

    config     its shape
    origin     how the checkpoint stored its weights
    precision  the format of the weights in memory, one of PRECISIONS
    device     where token ids are expected and results are returned
    sessions   CUDA graphs, which decode several tokens per call; None in all decoders but GraphDecoder
    """

    config: GPTConfig
    origin: Origin
    precision: str
    device: torch.device
    sessions: GraphSessions | None

    def __call__(self, idx: Tensor) -> Tensor:
        """Logits (B, T, V) of the token after each of `idx` (B, T)."""
        ...

    def hidden(self, idx: Tensor, sight: KVCache | PackedRow) -> Tensor:
        """Final hidden states (B, T, C) of token ids `idx` (B, T). A KVCache receives their keys and values.

        Raises UsageError for more tokens than the window or the cache holds.
        """
        ...

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of final hidden states (..., C)."""
        ...

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """An empty cache for `rows` sequences of at most `capacity` tokens."""
        ...

    def weight_bytes(self) -> int:
        """The bytes of weights that a decoding step reads: the blocks, the last norm and the head.

        The one row of each embedding that a step reads does not count.
        """
        ...

    def compiling_note(self) -> str | None:
        """A note about compilation, which takes a while, or None if nothing must be compiled."""
        ...

    def prepare(self, note: Callable[[str], None]) -> float:
        """Do in advance what would delay the first step. `note` gets the note about compilation, if there is one.

        Returns the seconds that this took, without the compilation.
        """
        ...


def make_decoder(gpt: GPT, device: torch.device, precision: str, compile: bool = False) -> Decoder:
    """A decoder for `gpt`, which is on the CPU in fp32 and must not be used afterwards.

    `precision` is one of PRECISIONS, or auto: see `pick_precision`. With `compile`, CUDA graphs decode. Raises
    CheckpointError for weights that are too large for `precision`, and UsageError if the device has no CUDA graphs.
    """
    if precision == "auto":
        precision = pick_precision(gpt, device)
    if compile:
        check_graphs(device)
        return GraphDecoder(move(gpt, device, precision), precision)
    if device.type == "cpu" and has_kernels():
        from gpt2cli.inference.cpu_decoder import CPUDecoder  # Numba takes long to import

        return CPUDecoder(gpt, precision)
    return TorchDecoder(move(gpt, device, precision), precision)


def as_decoder(model: GPT | Decoder) -> Decoder:
    """The model itself if it is a decoder; a decoder for a plain GPT, such as one that is being trained."""
    return TorchDecoder(model) if isinstance(model, GPT) else model


def pick_precision(gpt: GPT, device: torch.device) -> str:
    """The fastest precision whose results a person cannot distinguish from those of fp32.

    int8 if the weights are stored in 8 or 4 bits. Otherwise bf16 on a CUDA device that computes in it, and fp16 on a
    CPU with kernels, where perplexity differs by less than 0.01%. Else fp32.
    """
    if device.type == "cpu" and has_kernels():
        return "int8" if gpt.origin.precision.startswith("int") else "fp16"
    return "bf16" if device.type == "cuda" and computes_bf16() else "fp32"


def has_kernels() -> bool:
    """Whether Numba is installed and the processor converts 16-bit numbers: x86 since 2013, and 64-bit ARM."""
    if find_spec("numba") is None:
        return False
    from llvmlite import binding  # part of Numba

    machine = binding.get_default_triple().partition("-")[0]
    return machine in ("aarch64", "arm64") or bool(binding.get_host_cpu_features().get("avx2"))
