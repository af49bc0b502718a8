"""What several threads need in compiled code: arrays at given addresses, counters that all threads share, barriers."""

import os
from typing import Any

import numpy as np
from llvmlite import ir

from gpt2cli.inference.cpu.compiler.emission import declared
from gpt2cli.inference.cpu.compiler.functions import emitted, inlined
from gpt2cli.inference.cpu.compiler.values import INDEX, Array, Number, convert, llvm_type
from gpt2cli.inference.cpu.processor import TRIPLE

SPINS = 1000
"""How often a thread looks at a barrier before it sleeps: about 30 microseconds, longer than most waits."""
_ORDER = "seq_cst"
_COUNTER = ir.IntType(64).as_pointer()
_NOTHING, _INT, _WORD = ir.VoidType(), ir.IntType(32), ir.IntType(64)
_FUTEX = {"x86_64": 202, "aarch64": 98}.get(TRIPLE.partition("-")[0]) if "linux" in TRIPLE else None
"""The number of the Linux kernel's call with which threads sleep and wake each other."""
_WAIT, _WAKE = 128, 129  # among threads of this process


@emitted
def array_at(b: Any, address: Number, shape: Any, kind: Any) -> Array:
    """The contiguous array of this shape, a tuple, and of the type `kind` at an address."""
    dtype = np.dtype(kind)
    data = b.inttoptr(address.llvm, llvm_type(dtype).as_pointer())
    return Array(dtype, data, tuple(convert(b, size, INDEX).llvm for size in shape))


@emitted
def next_tasks(b: Any, counter: Number, count: Any) -> Number:
    """Take the next `count` tasks from the counter at an address. Returns the number of the first."""
    pointer = b.inttoptr(counter.llvm, _COUNTER)
    return Number(INDEX, b.atomic_rmw("add", pointer, convert(b, count, INDEX).llvm, _ORDER))


@emitted
def read_counter(b: Any, counter: Number) -> Number:
    """The value of the counter at an address."""
    return Number(INDEX, b.load_atomic(b.inttoptr(counter.llvm, _COUNTER), _ORDER, 8))


@emitted
def spin(b: Any) -> None:
    """Tell the processor that this thread waits."""
    if TRIPLE.startswith(("x86_64", "i686")):
        b.call(declared(b, ir.FunctionType(_NOTHING, []), "llvm.x86.sse2.pause"), [])
    elif TRIPLE.startswith(("aarch64", "arm64")):
        b.call(declared(b, ir.FunctionType(_NOTHING, [_INT]), "llvm.aarch64.hint"), [ir.Constant(_INT, 1)])


@emitted
def sleep_while(b: Any, counter: Number, value: Number) -> None:
    """Sleep until another thread calls `wake_all`, unless the counter at an address has another value than this one."""
    if _FUTEX:
        unused = ir.Constant(_WORD, 0)
        _system_call(b, _FUTEX, counter.llvm, ir.Constant(_WORD, _WAIT), value.llvm, unused, unused, unused)
    elif os.name == "posix":
        b.call(declared(b, ir.FunctionType(_INT, []), "sched_yield"), [])


@emitted
def wake_all(b: Any, counter: Number) -> None:
    """Wake the threads that sleep at a counter."""
    if _FUTEX:
        everyone, unused = ir.Constant(_WORD, 2**31 - 1), ir.Constant(_WORD, 0)
        _system_call(b, _FUTEX, counter.llvm, ir.Constant(_WORD, _WAKE), everyone, unused, unused, unused)


def _system_call(b: Any, number: int, *arguments: Any) -> None:
    kind = ir.FunctionType(_WORD, [_WORD], var_arg=True)
    b.call(declared(b, kind, "syscall"), [ir.Constant(_WORD, number), *arguments])


@inlined
def wait_for_all(counter: int, threads: int) -> None:
    """A barrier: arrive, then wait until all threads have arrived. The counter at this address was 0 before.

    A thread that has waited for a while sleeps, because other programs may need its processor, or the thread that it
    waits for. The number of threads that have done so follows the counter.
    """
    sleepers = counter + 8
    if next_tasks(counter, 1) + 1 == threads:
        if read_counter(sleepers) > 0:
            wake_all(counter)
        return
    spins = 0
    while spins < SPINS and read_counter(counter) < threads:
        spin()
        spins += 1
    if spins == SPINS:
        next_tasks(sleepers, 1)
        arrived = read_counter(counter)
        while arrived < threads:
            sleep_while(counter, arrived)
            arrived = read_counter(counter)
