"""The devices of this machine, the number types in which they are fast, and the memory that a process used."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from gpt2cli.errors import UsageError
from gpt2cli.model.device_names import check_device_name

TOKENS_PER_PASS = {"cpu": 1024, "cuda": 16384, "mps": 4096}
"""Tokens in one forward pass over whole sequences. More are no faster and need more memory."""

LOGIT_ROWS = {"cpu": 128, "cuda": 4096, "mps": 1024}
"""Tokens whose logits are in memory at once in training and evaluation. For GPT-2's vocabulary, 128 take 26 MB."""

KEPT_KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}
"""How many kernels oneDNN and PyTorch's layer above it keep. They multiply matrices of 16 bits on CPUs.

There is a kernel for each size of a product, and packed rows have other sizes at every step. Each of the two would keep
1,024 kernels, a gigabyte and more. No step needs 64.
"""


def available_devices() -> list[str]:
    """The devices that this machine has and this PyTorch supports, the fastest first."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def pick_device(name: str = "auto") -> torch.device:
    """The device with this name. `auto` is the fastest one, `cuda` the first CUDA device.

    Raises UsageError, with the names of the machine's devices, for any other name.
    """
    check_device_name(name)
    available = available_devices()
    for variable, count in KEPT_KERNELS.items():  # they are read once, before the first product
        os.environ.setdefault(variable, count)
    if available[0].startswith("cuda"):  # for `repeatable`; cuBLAS reads it once, before its first product
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if name == "auto":
        return torch.device(available[0])
    for device in available:
        if name in (device, device.partition(":")[0]):
            return torch.device(device)
    raise UsageError(f"device {name!r} is not there; this machine has: {', '.join(available)}")


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
    """
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filling = torch._C._get_deterministic_fill_uninitialized_memory()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch._C._set_deterministic_fill_uninitialized_memory(False)  # it only helps to find bugs, and takes time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch._C._set_deterministic_fill_uninitialized_memory(filling)


def peak_rss_mb() -> float:
    """The peak resident memory of this process, in MB of 2^20 bytes; 0 if the platform does not report it."""
    if sys.platform == "win32":
        return 0.0
    # on Linux, getrusage's figure includes the parent process's memory before the fork
    with suppress(OSError, ValueError, IndexError):  # other platforms have no such file, or another one
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):  # some kernels that imitate Linux lack this line
                return int(line.split()[1]) / 2**10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
