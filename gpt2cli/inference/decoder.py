"""`Decoder`, the interface of a model for inference, and the choice among CPUDecoder, GraphDecoder and TorchDecoder.

This module does not import torch: a CPUDecoder needs none.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gpt2cli.config import GPTConfig
from gpt2cli.errors import UsageError
from gpt2cli.model.device_names import device_kind
from gpt2cli.model.origin import Origin

if TYPE_CHECKING:
    from gpt2cli.inference.gpu.cuda_graphs import GraphSessions
    from gpt2cli.model.gpt import GPT

PRECISIONS = ("fp32", "bf16", "fp16", "int8", "int4")
"""The formats of weights in memory during inference."""

Candidates = Callable[[Any, int, Sequence[NDArray[np.int64]], float], tuple[NDArray[np.float32], NDArray[np.int64]]]
"""The type of `Decoder.candidates`."""


class Cache(Protocol):
    """Keys and values of the earlier tokens of several sequences, one in each row.

    lengths   the number of tokens in each row. A smaller number makes a row forget its last tokens.
    capacity  the largest number of tokens in a row
    """

    lengths: list[int]
    capacity: int

    @property
    def nbytes(self) -> int:
        """The size of the keys and values, for the whole capacity."""
        ...

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order. The same row may be selected several times."""
        ...

    def copy_row(self, row: int, other: Any) -> None:
        """Replace the tokens of a row by those of the only row of another cache of the same decoder, or of a view."""
        ...

    def view(self, rows: Sequence[int]) -> Any:
        """These rows, each at most once, as a sight for `Decoder.hidden`. It shares this cache's memory and lengths."""
        ...

    def clear(self, row: int) -> None:
        """Forget a row's tokens, also those that were not finite."""
        ...


@runtime_checkable
class Decoder(Protocol):
    """A model that is ready to run. Token ids are NumPy arrays.

    Hidden states and logits are arrays of the decoder's kind: of NumPy, or tensors on its device. Both kinds can be
    indexed, also by lists, and reshaped.

    config     its shape
    origin     how the checkpoint stored its weights
    precision  the format of the weights in memory, one of PRECISIONS
    device     where it computes: cpu, mps, or for example cuda:0
    threads    the number of threads on the CPU
    sessions   CUDA graphs, which decode several tokens per call; None in all decoders but GraphDecoder
    """

    config: GPTConfig
    origin: Origin
    precision: str
    device: str
    sessions: "GraphSessions | None"

    @property
    def threads(self) -> int: ...

    def __call__(self, idx: Any) -> NDArray[np.float32]:
        """Logits (B, T, V) of the token after each of the ids `idx` (B, T), an array or nested lists."""
        ...

    def hidden(self, idx: NDArray[np.int64], sight: Any, whole: int | None = None) -> Any:
        """Final hidden states (B, T, C) of token ids `idx` (B, T).

        `sight` is a cache of this decoder or a view of it, which receives the tokens' keys and values, or a PackedRow.
        If a prompt is read in several calls, `whole` is the number of all its tokens: a CPUDecoder then computes the
        same to the bit as in one call. Raises UsageError for more tokens than the window or the cache holds.
        """
        ...

    def head(self, hidden: Any) -> Any:
        """Logits (..., V) of final hidden states (..., C)."""
        ...

    def to_host(self, logits: Any) -> NDArray[np.float32]:
        """Logits of the decoder's kind as an array of NumPy, in fp32."""
        ...

    def candidates(
        self, logits: Any, count: int, seen: Sequence[NDArray[np.int64]] = (), penalty: float = 1.0
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The tokens that `inference.candidates.candidates` finds, for logits (B, V) of the decoder's kind."""
        ...

    def new_cache(self, rows: int, capacity: int) -> Cache:
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


def make_decoder(gpt: "GPT", device: str, precision: str, compile: bool = False, threads: int | None = None) -> Decoder:
    """A decoder of PyTorch for `gpt`, which is on the CPU in fp32 and must not be used afterwards.

    `precision` is one of PRECISIONS, or auto: see `pick_precision`. With `compile`, CUDA graphs decode. `threads` is
    the number of threads on the CPU; None is the default. Raises CheckpointError for weights that are too large for
    `precision`, and UsageError if the device has no CUDA graphs.
    """
    if precision == "auto":
        precision = pick_precision(device)
    import torch

    from gpt2cli.inference.torch_decoder import TorchDecoder, move

    if threads:
        torch.set_num_threads(threads)
    if not compile:
        return TorchDecoder(move(gpt, device, precision), precision)
    from gpt2cli.inference.gpu.graph_decoder import GraphDecoder

    check_graphs(device)
    return GraphDecoder(move(gpt, device, precision), precision)


def as_decoder(model: "GPT | Decoder") -> Decoder:
    """The model itself if it is a decoder; a decoder for a plain GPT, such as one that is being trained."""
    if isinstance(model, Decoder):
        return model
    from gpt2cli.inference.torch_decoder import TorchDecoder

    return TorchDecoder(model)


def check_graphs(device: str) -> None:
    """Raise UsageError for a device that has no CUDA graphs."""
    if device_kind(device) != "cuda":
        raise UsageError(f"--compile needs a CUDA device, not {device_kind(device)}: leave it out")


def pick_precision(device: str) -> str:
    """What `auto` means for a decoder of PyTorch: bf16 on a CUDA device that computes in it, else fp32.

    A person cannot distinguish the results from those of fp32.
    """
    if device_kind(device) != "cuda":
        return "fp32"
    from gpt2cli.model.device import computes_bf16

    return "bf16" if computes_bf16() else "fp32"


def has_kernels() -> bool:
    """Whether there is a CPUDecoder for this processor: x86 since 2013, and 64-bit ARM. They convert 16-bit numbers."""
    if find_spec("llvmlite") is None:
        return False
    from gpt2cli.inference.cpu.processor import FEATURES, TRIPLE

    return TRIPLE.startswith(("aarch64", "arm64")) or "avx2" in FEATURES
