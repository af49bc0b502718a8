"""What PyTorch knows about the devices of this machine: their names, and the number types in which they are fast.

`device_choice` picks one, without torch where it can.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gpt2cli.model.device_choice import CUBLAS_WORKSPACE, REPEATABLE_WORKSPACES

TOKENS_PER_PASS = {"cpu": 1024, "cuda": 16384, "mps": 4096}
"""Tokens in one forward pass over whole sequences. More are no faster and need more memory."""

LOGIT_ROWS = {"cpu": 128, "cuda": 4096, "mps": 1024}
"""Tokens whose logits are in memory at once in training and evaluation. For GPT-2's vocabulary, 128 take 26 MB."""


def available_devices() -> list[str]:
    """The devices that this machine has and this PyTorch supports, the fastest first."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def computes_bf16() -> bool:
    """Whether the CUDA device computes in bf16 itself. Emulation, which torch also counts, is slower than fp32."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def fast_training_dtype(device: torch.device) -> torch.dtype | None:
    """The type for autocast in training: bf16 if the device multiplies matrices faster in it, else None."""
    if device.type == "cuda":
        return torch.bfloat16 if computes_bf16() else None
    if device.type == "cpu" and any(
        getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    ):
        return torch.bfloat16
    return None


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Make CUDA add up gradients in the same order every time, as the CPU always does.

    So a resumed run can equal an uninterrupted one bit for bit. The backward pass of attention is somewhat slower.

    With `warn_only`, attention would only warn and add up in any order: see `_flash_attention_backward` in PyTorch. The
    strict mode demands a workspace for cuBLAS, which `pick_device` sets unless the user chose another.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filling = torch._C._get_deterministic_fill_uninitialized_memory()
    strict = os.environ.get(CUBLAS_WORKSPACE) in REPEATABLE_WORKSPACES
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    torch._C._set_deterministic_fill_uninitialized_memory(False)  # it only helps to find bugs, and takes time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch._C._set_deterministic_fill_uninitialized_memory(filling)
