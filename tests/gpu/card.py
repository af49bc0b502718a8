"""What the card can do: the rates that other figures are shares of."""

import os
import statistics
import time

import torch

from gpt2cli.inference.gpu.bandwidth import read_bandwidth
from tests.gpu.common import Context

DATASHEET_BF16 = 989e12
"""Dense bf16 operations a second of an H100 or H200 SXM, by the vendor's datasheet."""


def card(context: Context) -> None:
    """The device's name, its memory's bandwidth, the rate of a large product, and the host's time for an operation."""
    figures = {}
    if context.cuda:
        properties = torch.cuda.get_device_properties(0)
        figures = {"memory_gb": properties.total_memory / 1e9, "processors": properties.multi_processor_count}
        figures["capability"] = f"{properties.major}.{properties.minor}"
    context.report("device", True, cuda=torch.version.cuda, **figures)
    read = read_bandwidth(context.device.type)
    context.report("bandwidth", True, read_gb_s=read / 1e9, copy_gb_s=copy_rate(context) / 1e9)
    rate = matmul_rate(context)
    context.report("matmul", True, bf16_tflop_s=rate / 1e12, share_of_datasheet=rate / DATASHEET_BF16)
    context.report("host", True, us_an_operation=operation_time(context) * 1e6, load=os.getloadavg()[0])


def copy_rate(context: Context) -> float:
    """Bytes read and written a second by a copy on the device: the best of 10."""
    source = torch.randn(context.pick(2**30, 2**22), device=context.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best_time(context, lambda: target.copy_(source), 1)


def matmul_rate(context: Context) -> float:
    """Operations a second of a bf16 product of two random square matrices: the best of 10 means of three."""
    n = context.pick(8192, 256)
    a, b = (torch.randn(n, n, device=context.device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / best_time(context, lambda: a @ b, 3)


def operation_time(context: Context) -> float:
    """Seconds that the host takes to start an operation, the median of 10 means: most small steps wait for this."""
    x, means = torch.zeros(1, device=context.device), []
    for _ in range(10):
        start = context.clock()
        for _ in range(500):
            x.add_(1)
        means.append((time.perf_counter() - start) / 500)
    return statistics.median(means)


def best_time(context: Context, work, repeats: int) -> float:
    """Seconds of one call: the best of 10 means of `repeats` calls, after three to warm up."""
    for _ in range(3):
        work()
    seconds = []
    for _ in range(10):
        start = context.clock()
        for _ in range(repeats):
            work()
        seconds.append((context.clock() - start) / repeats)
    return min(seconds)
