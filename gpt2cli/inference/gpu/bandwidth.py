"""Measures how fast a GPU reads its memory, and waits for a GPU."""

import time

import torch

BUFFER_BYTES = 2**29
"""Size of the buffer that is read: larger than the caches."""
PASSES = 10
"""How often the buffer is read."""


@torch.inference_mode()
def read_bandwidth(device: str) -> float:
    """The bytes per second at which PyTorch reads the device's memory: those of the fastest of PASSES sums.

    A sum is PyTorch's fastest operation that only reads.
    """
    buffer = torch.ones(BUFFER_BYTES // 4, device=device)
    seconds = []
    for _ in range(PASSES):
        wait_for(device)
        start = time.perf_counter()
        buffer.sum()
        wait_for(device)
        seconds.append(time.perf_counter() - start)
    return buffer.nbytes / min(seconds)


def wait_for(device: str) -> None:
    """Wait until the device has finished its work."""
    if device != "cpu":
        torch.accelerator.synchronize(device)
