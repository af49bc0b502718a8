"""The threads that run a compiled loop together. They wait for the next one between two calls."""

import os
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from threading import Lock, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2cli.inference.cpu import pass_table as at
from gpt2cli.inference.cpu.compiler.object_code import Loop

_release = type(Lock()).release


@dataclass
class _Job:
    """What the threads of a team run next: a loop with the address of its table. Without a loop, they end."""

    loop: Loop | None = None
    table: int = 0


class ThreadTeam:
    """`size` threads, one of which is the caller's. The others are started by the first call, and end with the team.

    One call at a time: the callers hold a lock. Python's own lock is free while a loop runs. A loop uses up to
    `counters` counters.
    """

    def __init__(self, size: int, counters: int = 1) -> None:
        self.size = size
        # of the next loop and of the loop before, whose last counter a thread may still read
        self._counters = deque(np.zeros((2, counters, at.COUNTER_BYTES // 8), np.int64))
        self._process = 0
        self._begin: Sequence[Lock] = ()
        self._job = _Job()

    def run(self, loop: Loop, table: NDArray[Any]) -> None:
        """Call the loop with a table of `pass_table` and a number in each thread.

        Each loop ends with a barrier. So all threads are done when the caller's is.
        """
        if self._process != os.getpid():  # a fork has no threads
            self._start()
        counters = self._counters[0]
        counters[:] = 0
        table[at.THREADS], table[at.COUNTERS] = self.size, counters.ctypes.data
        self._job.loop, self._job.table = loop, table.ctypes.data
        # One call of a function in C wakes the threads and runs the loop. Between two statements, Ctrl-C can raise
        # KeyboardInterrupt. Then threads that have begun would never leave a barrier.
        own: Iterator[None] = iter(partial(loop, table.ctypes.data, 0), None)
        exchange = map(self._counters.rotate, (1,))
        deque(chain(exchange, map(_release, self._begin), own), maxlen=0)

    def _start(self) -> None:
        begin, self._job = [Lock() for _ in range(1, self.size)], _Job()
        for number, lock in enumerate(begin, start=1):
            lock.acquire()
            arguments = (number, lock, self._job)
            Thread(target=_work, args=arguments, name=f"loops-{number}", daemon=True).start()
        weakref.finalize(self, _end, begin, self._job).atexit = False
        self._begin, self._process = begin, os.getpid()


def _work(number: int, begin: Lock, job: _Job) -> None:
    while True:
        begin.acquire()
        if job.loop is None:
            return
        job.loop(job.table, number)


def _end(begin: Sequence[Lock], job: _Job) -> None:
    """Let the threads of a team end that nobody uses any longer."""
    job.loop = None
    for lock in begin:
        lock.release()
