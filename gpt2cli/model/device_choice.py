"""The choice of a device. It imports torch only where a GPU may be there: the import takes seconds."""

import ctypes
import os
import re
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from gpt2cli.errors import UsageError
from gpt2cli.model.device_names import check_device_name

KEPT_KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}
"""How many kernels oneDNN and PyTorch's layer above it keep. They multiply matrices of 16 bits on CPUs.

There is a kernel for each size of a product, and packed rows have other sizes at every step. Each of the two would keep
1,024 kernels, a gigabyte and more. No step needs 64.
"""

CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
REPEATABLE_WORKSPACES = (":4096:8", ":16:8")
"""Values of this environment variable with which cuBLAS gives the same result every time."""


def pick_device(name: str = "auto") -> str:
    """The device with this name, for example cpu or cuda:0. `auto` is the fastest one, `cuda` the first CUDA device.

    Raises UsageError, with the names of the machine's devices, for any other name.
    """
    check_device_name(name)
    for variable, count in KEPT_KERNELS.items():  # they are read once, before the first product
        os.environ.setdefault(variable, count)
    if name == "cpu" or (name == "auto" and not may_have_gpu()):
        return "cpu"
    from gpt2cli.model.device import available_devices

    available = available_devices()
    if available[0].startswith("cuda"):  # for `repeatable`; cuBLAS reads it once, before its first product
        os.environ.setdefault(CUBLAS_WORKSPACE, REPEATABLE_WORKSPACES[0])
    if name == "auto":
        return available[0]
    for device in available:
        if name in (device, device.partition(":")[0]):
            return device
    raise UsageError(f"device {name!r} is not there; this machine has: {', '.join(available)}")


def may_have_gpu() -> bool:
    """Whether torch may find a GPU: False only if it cannot. Imports nothing that takes long."""
    if "torch" in sys.modules or sys.platform == "darwin":  # builds for a Mac use its GPU
        return True
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    toolkit = gpu_toolkit()
    return toolkit == "unknown" or (toolkit == "cuda" and has_cuda_driver()) or toolkit == "hip"


def gpu_toolkit() -> str | None:
    """What the installed torch was built for: cuda, hip (AMD's GPUs), or None if only for the CPU.

    Read from the file `torch/version.py`, which its build writes. `unknown` if the file says nothing.
    """
    with suppress(OSError, ValueError, TypeError, AttributeError):
        text = Path(find_spec("torch").origin).with_name("version.py").read_text(encoding="utf-8")  # type: ignore[arg-type, union-attr]
        found = dict(re.findall(r"^(cuda|hip)\b[^=\n]*=[ \t]*(\S+)", text, re.MULTILINE))
        if "cuda" in found:
            return next((name for name in ("cuda", "hip") if found.get(name, "None") != "None"), None)
    return "unknown"


def has_cuda_driver() -> bool:
    """Whether NVIDIA's driver can be loaded, without which no CUDA device can be used."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
