"""What the machine has: devices, types that it computes fast in, memory."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from gpt2cli.errors import UsageError

TOKENS_PER_PASS = {"cpu": 1024, "cuda": 16384, "mps": 4096}
"""More than these in one forward pass over whole sequences are no faster, and cost memory."""

LOGIT_ROWS = {"cpu": 128, "cuda": 4096, "mps": 1024}
"""Tokens whose logits are held at once in training and evaluation: 128 are 26 MB in fp32 over GPT-2's vocabulary."""


def available_devices() -> list[str]:
    """The devices that this machine and this PyTorch have, the fastest first."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` takes the fastest there is, `cuda` the first of its kind.

    Raises UsageError, naming the devices there are, for one that is not there.
    """
    available = available_devices()
    if available[0].startswith("cuda"):  # `repeatable` needs it; cuBLAS reads it once, at its first product
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if name == "auto":
        return torch.device(available[0])
    for device in available:
        if name in (device, device.partition(":")[0]):
            return torch.device(device)
    raise UsageError(f"device {name!r} is not there; this machine has: {', '.join(available)}")


def computes_bf16() -> bool:
    """Whether the CUDA device does so itself; an emulation, which torch counts too, is slower than fp32."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def fast_training_dtype(device: torch.device) -> torch.dtype | None:
    """bf16 where the device multiplies matrices faster in it than in fp32, else None: for autocast while training."""
    if device.type == "cuda":
        return torch.bfloat16 if computes_bf16() else None
    if device.type == "cpu" and any(
        getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    ):
        return torch.bfloat16
    return None


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Make CUDA add up gradients in the same order every time, as the CPU does anyway.

    A resumed run can then equal an uninterrupted one bit for bit. It makes attention's backward pass somewhat slower.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filling = torch._C._get_deterministic_fill_uninitialized_memory()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch._C._set_deterministic_fill_uninitialized_memory(False)  # a help for finding faults, which takes time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch._C._set_deterministic_fill_uninitialized_memory(filling)


def peak_rss_mb() -> float:
    """The most memory, in MB of 2^20 bytes, that this process has had resident; 0 where the platform does not tell."""
    if sys.platform == "win32":
        return 0.0
    # Linux counts into getrusage's figure what the parent process had before this one began
    with suppress(OSError, ValueError, IndexError):  # elsewhere there is no such file, or it is another one
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):  # some kernels that only look like Linux leave it out
                return int(line.split()[1]) / 2**10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
