"""Inference by PyTorch's kernels, on any device."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt2cli.inference import candidates
from gpt2cli.inference.gpu import torch_sampling
from gpt2cli.inference.gpu.cuda_graphs import GraphSessions
from gpt2cli.model.cache import KVCache
from gpt2cli.model.device import computes_bf16
from gpt2cli.model.device_names import device_kind
from gpt2cli.model.gpt import CAUSAL, GPT, Causal
from gpt2cli.model.quantization import GROUP
from gpt2cli.model.torch_precisions import DTYPES, refuse_cut, round_weights


class TorchDecoder:
    """Implements `decoder.Decoder` for a GPT on any device. `precision` says what its weights were rounded to."""

    def __init__(self, gpt: GPT, precision: str = "fp32") -> None:
        self.gpt, self.precision = gpt, precision
        self.config, self.origin = gpt.config, gpt.origin
        self.device = str(gpt.wte.weight.device)
        self.sessions: GraphSessions | None = None

    @property
    def threads(self) -> int:
        return torch.get_num_threads()

    def __call__(self, idx: Any) -> NDArray[np.float32]:
        return self.to_host(self.head(self.hidden(np.asarray(idx), CAUSAL)))

    @torch.inference_mode()
    def hidden(self, idx: NDArray[np.int64], sight: Causal, whole: int | None = None) -> Tensor:
        return self.gpt.hidden(torch.from_numpy(idx).to(self.device), sight)

    @torch.inference_mode()
    def head(self, hidden: Tensor) -> Tensor:
        return self.gpt.head(hidden)

    def to_host(self, logits: Tensor) -> NDArray[np.float32]:
        array: NDArray[np.float32] = logits.float().cpu().numpy()
        return array

    @torch.inference_mode()
    def candidates(
        self, logits: Tensor, count: int, seen: Sequence[NDArray[np.int64]] = (), penalty: float = 1.0
    ) -> candidates.Found:
        if self.device == "cpu":
            return candidates.candidates(self.to_host(logits), count, seen, penalty)
        return torch_sampling.candidates(logits, count, seen, penalty)

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        return KVCache(self.config, rows, capacity, dtype=self.gpt.ln_f.weight.dtype, device=self.device)

    def weight_bytes(self) -> int:
        head: nn.Module = self.gpt.wte if self.gpt.lm_head is None else self.gpt.lm_head
        return sum(parameter.nbytes for part in (self.gpt.h, self.gpt.ln_f, head) for parameter in part.parameters())

    def compiling_note(self) -> str | None:
        return None

    def prepare(self, note: Callable[[str], None]) -> float:
        return 0.0


@torch.no_grad()
def move(gpt: GPT, device: str, precision: str) -> GPT:
    """Move a GPT in fp32 to `device` and give its weights the values that they have in `precision`, in place.

    PyTorch computes in the nearest type that it has. Raises CheckpointError for weights too large for `precision`.
    """
    if precision in ("int8", "int4"):
        held = "int8" if gpt.config.n_embd % GROUP else precision  # rows that are not whole groups of 4 bits
        for block in gpt.h:
            for parameter in block.parameters():
                if parameter.dim() == 2:
                    parameter.data = round_weights(parameter, held)
    if precision == "fp16":
        for parameter in gpt.parameters():
            refuse_cut(not bool(parameter.half().isfinite().all()), parameter, precision)
    nearest = "bf16" if device_kind(device) == "cuda" and computes_bf16() else "fp32"
    gpt.to(device, DTYPES.get(precision, DTYPES[nearest]))
    return gpt.eval()
