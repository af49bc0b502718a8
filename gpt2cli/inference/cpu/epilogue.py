"""The last step of a product, on vectors in registers: scales, bias, GELU or the addition to what is there."""

from typing import Any

from gpt2cli.inference.cpu import vector_math as vm
from gpt2cli.inference.cpu.compiler.emission import for_range
from gpt2cli.inference.cpu.compiler.functions import emitted
from gpt2cli.inference.cpu.compiler.values import Array, Value, indexes
from gpt2cli.inference.cpu.llvm_simd import MatrixRows, broadcast, index
from gpt2cli.inference.cpu.packed_layout import BLOCK_OUTPUTS
from gpt2cli.inference.cpu.processor import LANES

STORE, GELU, ADD = 0, 1, 2
"""Epilogues of a product: write the results, write their GELU, or add the results to the output."""


@emitted
def finish(
    b: Any, sums: Array, rows: int, scale: Array, bias: Array, y: Array, r: Value, first: Value, epilogue: Value
) -> None:
    """`emit_epilogue` for sums (rows, BLOCK_OUTPUTS), a known number of rows: y[r : r + rows] receives the results."""
    r, first, epilogue = indexes(b, r, first, epilogue)
    factors, offsets = (b.gep(array.data, [first]) for array in (scale, bias))
    emit_epilogue(b, rows, sums.data, None, factors, offsets, MatrixRows(b, y, r), first, epilogue)


def emit_epilogue(
    b: Any, rows: int, sums: Any, steps: Any, scale: Any, bias: Any, y: MatrixRows, first: Any, epilogue: Any
) -> None:
    """Write sums (rows, BLOCK_OUTPUTS) * steps (rows, 1) * scale (BLOCK_OUTPUTS,) + bias to y, from output `first` on.

    `sums`, `steps`, `scale` and `bias` are pointers to fp32; without `steps` or `scale`, nothing is multiplied by them.
    `epilogue` is STORE, GELU or ADD.
    """
    is_gelu, is_added = (b.icmp_signed("==", epilogue, index(value)) for value in (GELU, ADD))
    with for_range(b, index(0), index(rows * BLOCK_OUTPUTS), LANES) as (n, _):
        t, o = b.udiv(n, index(BLOCK_OUTPUTS)), b.urem(n, index(BLOCK_OUTPUTS))
        value, offset = vm.load(b, sums, n), vm.load(b, bias, o)
        factors = [] if steps is None else [broadcast(b, b.load(b.gep(steps, [t])), LANES)]
        factors += [] if scale is None else [vm.load(b, scale, o)]
        for factor in factors[:-1]:
            value = vm.multiply(b, value, factor)
        value = vm.multiply_add(b, value, factors[-1], offset) if factors else vm.add(b, value, offset)
        place = b.add(b.mul(t, y.width), b.add(first, o))
        with b.if_else(is_gelu) as (then, otherwise):
            with then:
                vm.store(b, vm.gelu(b, value), y.start, place)
            with otherwise:
                before = b.select(is_added, vm.load(b, y.start, place), vm.ZERO)
                vm.store(b, vm.add(b, before, value), y.start, place)
