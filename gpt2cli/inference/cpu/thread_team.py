"""The threads that run a compiled loop together. They wait for the next one between two calls."""

import os
from threading import Lock, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2cli.inference.cpu import pass_table as at
from gpt2cli.inference.cpu.compiler.object_code import Loop


class ThreadTeam:
    """`size` threads, one of which is the caller's. The others are started by the first call, and end with the process.

    One call at a time: the callers hold a lock. Python's own lock is free while a loop runs. A loop uses up to
    `counters` counters.
    """

    def __init__(self, size: int, counters: int = 1) -> None:
        self.size = size
        self._counters = np.zeros((2, counters, at.COUNTER_BYTES // 8), np.int64)
        self._runs = 0
        self._process = 0
        self._begin: list[Lock] = []
        self._job: tuple[Loop, int]

    def run(self, loop: Loop, table: NDArray[Any]) -> None:
        """Call the loop with a table of `pass_table` and a number in each thread.

        Each loop ends with a barrier. So all threads are done when the caller's is.
        """
        if self._process != os.getpid():  # a fork has no threads
            self._start()
        self._runs += 1
        counters = self._counters[self._runs % 2]  # a thread may still look at the counters of the loop before
        counters[:] = 0
        table[at.THREADS], table[at.COUNTERS] = self.size, counters.ctypes.data
        self._job = (loop, table.ctypes.data)
        for lock in self._begin:
            lock.release()
        loop(table.ctypes.data, 0)

    def _start(self) -> None:
        self._process = os.getpid()
        self._begin = [Lock() for _ in range(1, self.size)]
        for number, lock in enumerate(self._begin, start=1):
            lock.acquire()
            Thread(target=self._work, args=(number, lock), name=f"loops-{number}", daemon=True).start()

    def _work(self, number: int, begin: Lock) -> None:
        while True:
            begin.acquire()
            loop, table = self._job
            loop(table, number)
