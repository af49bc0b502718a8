"""Measures how fast the processor reads its memory."""

import time

import numpy as np

from gpt2cli.inference.cpu import pass_table as at
from gpt2cli.inference.cpu.compiling import loops
from gpt2cli.inference.cpu.huge_pages import Arena
from gpt2cli.inference.cpu.thread_team import ThreadTeam

BUFFER_BYTES = 2**29
"""Size of the buffer that is read: larger than the caches."""
PASSES = 10
"""How often the buffer is read."""


def read_bandwidth(threads: int, precision: str) -> float:
    """The bytes per second at which this many threads read memory: those of the fastest of PASSES sums.

    As the weights, the buffer is in large pages if possible. The loop is one of those for `precision`, all of which
    have the same.
    """
    buffer = Arena().zeros((BUFFER_BYTES // 8,), np.int64)
    buffer[:] = 1
    sums, table = np.zeros(threads, np.int64), np.zeros(at.SIZE, np.int64)
    table[at.X], table[at.ROWS], table[at.OUT] = buffer.ctypes.data, len(buffer), sums.ctypes.data
    team, loop = ThreadTeam(threads), loops(precision).read_memory
    seconds = []
    for _ in range(PASSES):
        start = time.perf_counter()
        team.run(loop, table)
        seconds.append(time.perf_counter() - start)
    return buffer.nbytes / min(seconds)
