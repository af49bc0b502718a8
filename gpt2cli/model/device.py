"""Where to compute, and in which type."""

import torch

from gpt2cli.errors import UsageError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def available_devices() -> list[str]:
    """The devices that this machine and this PyTorch have, the fastest first."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` takes the fastest there is, `cuda` the first of its kind.

    Raises UsageError, naming the devices there are, for one that is not there.
    """
    available = available_devices()
    if name == "auto":
        return torch.device(available[0])
    for device in available:
        if name in (device, device.partition(":")[0]):
            return torch.device(device)
    raise UsageError(f"device {name!r} is not there; this machine has: {', '.join(available)}")


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type that weights are held in; `auto` is bf16 on a CUDA device that has it, otherwise fp32."""
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if precision not in DTYPES:
        raise UsageError(f"precision must be auto, {', '.join(DTYPES)}, not {precision}")
    return DTYPES[precision]
