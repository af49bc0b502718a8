"""What several threads need in compiled code: arrays at given addresses, counters that all threads share, barriers.

Emitted as LLVM instructions. Imported only to compile.
"""

import os
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from gpt2cli.inference.cpu.compiling import inlined

COUNTER_STEP = 64
"""Bytes between two counters: a cache line, so that threads that use different counters do not disturb each other."""
SPINS = 4096
"""How often a thread looks at a barrier before it lets other processes run."""
_ORDER = "seq_cst"
_COUNT = ir.IntType(64)


@intrinsic
def array_at(typingctx: Any, address: Any, rows: Any, columns: Any, kind: Any) -> Any:
    """The contiguous array (rows, columns) of type `kind` at an address."""
    array_type = types.Array(kind.dtype, 2, "C")
    signature = array_type(address, rows, columns, kind)

    def emit_array(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        element = context.get_data_type(array_type.dtype)
        size = context.get_constant(types.intp, context.get_abi_sizeof(element))
        shape = [context.cast(b, arguments[i], signature.args[i], types.intp) for i in (1, 2)]
        array = make_array(array_type)(context, b)
        populate_array(
            array,
            data=b.inttoptr(arguments[0], element.as_pointer()),
            shape=cgutils.pack_array(b, shape),
            strides=cgutils.pack_array(b, [b.mul(shape[1], size), size]),
            itemsize=size,
            meminfo=None,
        )
        return array._getvalue()

    return signature, emit_array


@intrinsic
def add_to_counter(typingctx: Any, address: Any, number: Any) -> Any:
    """Add a number to the counter at an address, at once for all threads. Returns the value before."""

    def emit_add(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        pointer = b.inttoptr(arguments[0], _COUNT.as_pointer())
        return b.atomic_rmw("add", pointer, context.cast(b, arguments[1], signature.args[1], types.int64), _ORDER)

    return types.int64(address, number), emit_add


@intrinsic
def read_counter(typingctx: Any, address: Any) -> Any:
    """The value of the counter at an address."""

    def emit_read(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.load_atomic(b.inttoptr(arguments[0], _COUNT.as_pointer()), _ORDER, 8)

    return types.int64(address), emit_read


@intrinsic
def spin(typingctx: Any) -> Any:
    """Tell the processor that this thread waits."""

    def emit_spin(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        triple = b.module.triple
        nothing = ir.VoidType()
        if triple.startswith(("x86_64", "i686")):
            b.call(_declared(b, ir.FunctionType(nothing, []), "llvm.x86.sse2.pause"), [])
        elif triple.startswith(("aarch64", "arm64")):
            number = ir.IntType(32)
            b.call(_declared(b, ir.FunctionType(nothing, [number]), "llvm.aarch64.hint"), [number(1)])
        return context.get_dummy_value()

    return types.void(), emit_spin


@intrinsic
def let_others_run(typingctx: Any) -> Any:
    """Give the processor to another thread that is ready to run, if there is one."""

    def emit_yield(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        if os.name == "posix":
            b.call(_declared(b, ir.FunctionType(ir.IntType(32), []), "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), emit_yield


def _declared(b: Any, kind: Any, name: str) -> Any:
    return cgutils.get_or_insert_function(b.module, kind, name)


@inlined
def wait_for_all(counter: int, target: int) -> None:
    """A barrier: arrive, then wait until `target` threads have arrived since the counter was 0."""
    add_to_counter(counter, 1)
    spins = 0
    while read_counter(counter) < target:
        spin()
        spins += 1
        if spins % SPINS == 0:
            let_others_run()
