"""The last step of a product, on vectors in registers: scales, bias, GELU or the addition to what is there."""

import math
from typing import Any

from llvmlite import ir

from gpt2cli.inference.cpu.compiler.emission import steps as each
from gpt2cli.inference.cpu.elementwise import ADD, GELU
from gpt2cli.inference.cpu.llvm_simd import (
    FLOAT,
    INT,
    MatrixRows,
    broadcast,
    constant_vector,
    index,
    multiply_add,
    round_to_nearest,
)
from gpt2cli.inference.cpu.packed_layout import BLOCK_OUTPUTS
from gpt2cli.inference.cpu.processor import LANES


def emit_epilogue(
    b: Any,
    rows: int,
    sums: Any,
    steps: Any,
    scale: Any,
    bias: Any,
    y: MatrixRows,
    first: Any,
    epilogue: Any,
) -> None:
    """Write sums (rows, BLOCK_OUTPUTS) * steps (rows, 1) * scale (BLOCK_OUTPUTS,) + bias to y, from output `first` on.

    `sums`, `steps`, `scale` and `bias` are pointers to fp32; without `steps` or `scale`, nothing is multiplied by them.
    `epilogue` is STORE, GELU or ADD.
    """
    kind = ir.VectorType(FLOAT, LANES)
    is_gelu, is_added = (b.icmp_signed("==", epilogue, index(value)) for value in (GELU, ADD))
    with each(b, index(0), index(rows * BLOCK_OUTPUTS), LANES) as (n, _):
        t, o = b.udiv(n, index(BLOCK_OUTPUTS)), b.urem(n, index(BLOCK_OUTPUTS))

        def vector(start: Any, place: Any) -> Any:
            return b.load(b.bitcast(b.gep(start, [place]), kind.as_pointer()), align=4)

        value, offset = vector(sums, n), vector(bias, o)
        factors = [] if steps is None else [broadcast(b, b.load(b.gep(steps, [t])), LANES)]
        factors += [] if scale is None else [vector(scale, o)]
        for factor in factors[:-1]:
            value = b.fmul(value, factor)
        value = multiply_add(b, value, factors[-1], offset) if factors else b.fadd(value, offset)
        target = b.gep(y.start, [b.add(b.mul(t, y.width), b.add(first, o))])
        target = b.bitcast(target, kind.as_pointer())
        with b.if_else(is_gelu) as (then, otherwise):
            with then:
                b.store(_gelu(b, value), target, align=4)
            with otherwise:
                before = b.select(is_added, b.load(target, align=4), ir.Constant(kind, None))
                b.store(b.fadd(before, value), target, align=4)


def _gelu(b: Any, x: Any) -> Any:
    """GELU in its tanh form (Hendrycks & Gimpel 2016), where 1 + tanh(u) is 2 / (1 + exp(-2 u))."""
    root = math.sqrt(2 / math.pi)
    cubic = multiply_add(b, b.fmul(x, x), _constant(-2 * root * 0.044715), _constant(-2 * root))
    return b.fdiv(x, b.fadd(_constant(1), _exp(b, b.fmul(x, cubic))))


def _exp(b: Any, x: Any) -> Any:
    """e^x, as `elementwise.exp`."""
    for order, bound in (("<", -87), (">", 88)):
        x = b.select(b.fcmp_ordered(order, x, _constant(bound)), _constant(bound), x)  # NaN stays NaN
    n = round_to_nearest(b, b.fmul(x, _constant(1 / math.log(2))))
    # ln 2 in two parts, so that the first product is exact
    f = multiply_add(b, n, _constant(2.12194440e-4), multiply_add(b, n, _constant(-0.693359375), x))
    series = _constant(1 / 5040)
    for k in (720, 120, 24, 6, 2, 1, 1):
        series = multiply_add(b, series, f, _constant(1 / k))
    whole = b.fptosi(n, ir.VectorType(INT, LANES))
    exponent = b.shl(b.add(whole, constant_vector(INT, 127, LANES)), constant_vector(INT, 23, LANES))
    return b.fmul(series, b.bitcast(exponent, series.type))


def _constant(value: float) -> Any:
    return constant_vector(FLOAT, value, LANES)
