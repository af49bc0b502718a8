"""The threads that run a compiled loop together. They wait for the next one between two calls."""

import os
from threading import Lock, Thread

from gpt2cli.inference.cpu.compiler.object_code import Loop


class ThreadTeam:
    """`size` threads, one of which is the caller's. The others are started by the first call, and end with the process.

    One call at a time: the callers hold a lock. Python's own lock is free while a loop runs.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._process = 0
        self._begin: list[Lock] = []
        self._job: tuple[Loop, int]

    def run(self, loop: Loop, table: int) -> None:
        """Call `loop(table, n)` in each thread n. The loop ends with a barrier, so it is done when one call returns."""
        if self._process != os.getpid():  # a fork has no threads
            self._start()
        self._job = (loop, table)
        for lock in self._begin:
            lock.release()
        loop(table, 0)

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
