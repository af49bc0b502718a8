"""What several threads need in compiled code: arrays at given addresses, counters that all threads share, barriers."""

import os
from typing import Any

import numpy as np
from llvmlite import ir

from gpt2cli.inference.cpu.compiler.emission import declared
from gpt2cli.inference.cpu.compiler.functions import emitted, inlined
from gpt2cli.inference.cpu.compiler.values import INDEX, Array, Number, convert, llvm_type
from gpt2cli.inference.cpu.processor import TRIPLE

SPINS = 4096
"""How often a thread looks at a barrier before it lets others run on its processor."""
_ORDER = "seq_cst"
_COUNTER = ir.IntType(64).as_pointer()
_NOTHING, _INT = ir.VoidType(), ir.IntType(32)


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
def let_others_run(b: Any) -> None:
    """Give the processor to another thread that is ready to run, if there is one."""
    if os.name == "posix":
        b.call(declared(b, ir.FunctionType(_INT, []), "sched_yield"), [])


@inlined
def wait_for_all(counter: int, threads: int) -> None:
    """A barrier: arrive, then wait until all threads have arrived. The counter at this address was 0 before."""
    next_tasks(counter, 1)
    spins = 0
    while read_counter(counter) < threads:
        spin()
        spins += 1
        if spins % SPINS == 0:
            let_others_run()
