"""Measures how fast the processor reads its memory."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from gpt2cli.inference.cpu.thread_count import default_threads

BUFFER_BYTES = 2**29
"""Size of the buffer that is read: larger than the caches."""
PASSES = 10
"""How often the buffer is read."""


def read_bandwidth() -> float:
    """The bytes per second at which all threads together read memory: those of the fastest of PASSES sums."""
    buffer = np.ones(BUFFER_BYTES // 4, np.float32)
    parts = np.array_split(buffer, default_threads())
    seconds = []
    with ThreadPoolExecutor(len(parts)) as pool:
        for _ in range(PASSES):
            start = time.perf_counter()
            list(pool.map(_read, parts))  # NumPy computes without Python's lock
            seconds.append(time.perf_counter() - start)
    return buffer.nbytes / min(seconds)


def _read(part: Any) -> Any:
    """The largest number: NumPy's fastest operation that only reads."""
    return part.max()
